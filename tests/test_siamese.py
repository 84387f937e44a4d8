"""The DSA augmentation: against the authors' code, and what siamese means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgedd.distillation import siamese
from edgedd.distillation.siamese import NATURAL, STRATEGIES, Draw

GOLDEN = json.loads((Path(__file__).parent / "golden" / "siamese.json").read_text())["cases"]


def images(*shape: int) -> torch.Tensor:
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.tensor(np.sin(0.37 * i + 0.002 * i * i).reshape(shape), dtype=torch.float32)


@pytest.mark.parametrize("family", NATURAL)
def test_equals_the_authors_code(family: str) -> None:
    cases: list[dict[str, Any]] = [case for case in GOLDEN if case["family"] == family]
    assert len(cases) == 12
    for case in cases:
        x = images(*case["shape"])
        result = siamese.apply(x, Draw(family, np.array(case["uniform"]))).double().numpy()
        assert result.shape == x.shape
        assert np.allclose(result[:, 0, 2].ravel(), case["first"], atol=1e-5)
        weights = np.cos(0.11 * np.arange(result.size)).reshape(result.shape)
        assert np.isclose((result * weights).sum(), case["weighted"], atol=2e-4)


@pytest.mark.parametrize("family", NATURAL)
def test_a_siamese_draw_does_the_same_to_an_image_in_any_batch(family: str) -> None:
    x, generator = images(6, 3, 10, 7), np.random.default_rng(0)
    for _ in range(10):
        drawn = siamese.draw((family,), generator)
        together = siamese.apply(x, drawn)
        for part in (slice(0, 1), slice(2, 6)):
            assert torch.allclose(together[part], siamese.apply(x[part], drawn), atol=1e-6)


@pytest.mark.parametrize("family", NATURAL)
def test_gradients_are_those_of_a_linear_map(family: str) -> None:
    """Every family is linear in the image but for an offset: f(x + d) - f(x) equals its Jacobian times d, exactly."""
    x, d = images(2, 3, 8, 8).double(), images(2, 3, 8, 8).double().flip(0)
    drawn = Draw(family, np.array([[0.3, 0.8, 0.6]]))
    if family in ("scale", "rotate"):
        x, d = x.float(), d.float()  # grid_sample wants one type
    _, product = torch.autograd.functional.jvp(lambda z: siamese.apply(z, drawn), x, d, strict=False)
    assert torch.allclose(product, siamese.apply(x + d, drawn) - siamese.apply(x, drawn), atol=1e-5)
    assert float(product.abs().sum()) > 0


def test_one_family_a_call_and_all_of_a_strategy_in_turn() -> None:
    generator = np.random.default_rng(1)
    for strategy in STRATEGIES.values():
        drawn = [siamese.draw(strategy, generator) for _ in range(100)]
        assert {d.family for d in drawn} == set(strategy or ("",))
        assert all(d.uniform.shape == (1, 3) for d in drawn)
    assert set(NATURAL) - set(STRATEGIES["digits"]) == {"flip"}
    x = images(2, 1, 5, 5)
    assert siamese.apply(x, siamese.draw((), generator)) is x


def test_each_class_gets_its_own_draw() -> None:
    x, generator = images(6, 3, 8, 8), np.random.default_rng(2)
    draws = [siamese.draw(NATURAL, generator) for _ in range(3)]
    expected = torch.cat([siamese.apply(x[2 * c : 2 * c + 2], drawn) for c, drawn in enumerate(draws)])
    assert torch.equal(siamese.apply_by_class(x, draws), expected)


def test_per_image_parameters_differ() -> None:
    x = images(1, 3, 16, 16).expand(8, 3, 16, 16)
    for family in NATURAL:
        result = siamese.apply(x, siamese.draw((family,), np.random.default_rng(3), count=8))
        assert len({tuple(image.flatten().tolist()) for image in result}) > 1


def test_a_rotation_keeps_a_round_spot_round_on_images_that_are_not_square() -> None:
    y, x = np.mgrid[:12, :24] + 0.5
    spot = torch.from_numpy(np.exp(-((x - 12) ** 2 + (y - 6) ** 2) / 8).astype(np.float32))[None, None]
    turned = siamese.apply(spot, Draw("rotate", np.array([[1.0, 0, 0]])))
    assert float((turned - spot).abs().max()) < 0.06
