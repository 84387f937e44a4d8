"""Augmentation on the server: what each family does to an image, by hand."""

import numpy as np
import pytest
import torch

from edgedd.augmentation import Augmentation, Draw, draw
from edgedd.distillation.augment import apply, augment
from edgedd.errors import SettingError

IDENTITY = np.eye(2, 3, dtype=np.float32)


def images(count: int = 4, height: int = 6, width: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, height, width)).astype(np.float32))


def drawn(count: int, affine: np.ndarray) -> Draw:
    return Draw(
        np.tile(affine, (count, 1, 1)).astype(np.float32),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 3), np.float32),
    )


def test_nothing_on_is_the_identity() -> None:
    x = images()
    assert augment(x, Augmentation(), np.random.default_rng(0)) is x


def test_a_mirror_mirrors_exactly() -> None:
    x = images()
    flipped = augment(x, Augmentation(flip=1.0), np.random.default_rng(0))
    assert torch.allclose(flipped, x.flip(3), atol=1e-5)


def test_a_shift_moves_whole_pixels_and_fills_with_zeros() -> None:
    x = images()
    moved = IDENTITY.copy()
    moved[0, 2], moved[1, 2] = 2 * 2 / 8, -1 * 2 / 6  # sample 2 pixels to the right, 1 above
    result = apply(x, Augmentation(shift=2), drawn(4, moved))
    assert torch.allclose(result[:, :, 1:, :6], x[:, :, :5, 2:], atol=1e-5)
    assert float(result[:, :, 0].abs().max()) < 1e-5
    assert float(result[:, :, :, 6:].abs().max()) < 1e-5


def test_a_rotation_keeps_its_shape_on_images_that_are_not_square() -> None:
    """A disc of 3 pixels' radius around the centre of a 12x24 image stays one, whatever the angle."""
    y, x = np.mgrid[:12, :24] + 0.5
    disc = (((x - 12) ** 2 + (y - 6) ** 2) < 9).astype(np.float32)
    turned = augment(
        torch.from_numpy(np.tile(disc, (50, 1, 1, 1))), Augmentation(rotate=180.0), np.random.default_rng(1)
    )
    assert float((turned - torch.from_numpy(disc)).abs().mean()) < 0.02


def test_a_cutout_takes_its_share_of_the_image() -> None:
    x = torch.ones(500, 1, 32, 32)
    result = augment(x, Augmentation(cutout=0.25), np.random.default_rng(0))
    taken = 1 - result.mean((1, 2, 3))
    assert float(taken.max()) <= 0.0626
    assert float(taken.median()) > 0.03


def test_colour_keeps_grey_images_grey_and_other_families_alone() -> None:
    x = images()[:, :1].repeat(1, 3, 1, 1)
    result = augment(x, Augmentation(colour=1.0), np.random.default_rng(0))
    assert torch.allclose(result[:, 0], result[:, 2], atol=1e-5)
    assert not torch.allclose(result, x, atol=0.1)


def test_equal_generators_draw_equal_parameters() -> None:
    everything = Augmentation(0.5, 2, 0.2, 15.0, 0.3, 1.0)
    first, second = (draw(everything, 9, 8, 8, np.random.default_rng(3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


def test_gradients_pass_through_every_family() -> None:
    x = images().requires_grad_()
    augment(x, Augmentation(0.5, 1, 0.2, 15.0, 0.3, 1.0), np.random.default_rng(0)).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"shift": 2.5}, {"scale": -1}, {"rotate": float("nan")}, {"colour": "x"}]
)
def test_impossible_strengths_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Augmentation(**wrong)
