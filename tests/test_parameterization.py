"""What every parameterization promises, driven by the dict they are listed in."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tiny_sets
import torch

from edgedd.errors import SettingError
from edgedd.parameterization import (
    DCT,
    PARAMETERIZATIONS,
    Formation,
    LowRank,
    Pixels,
    SharedBasis,
    parameterization_from_dict,
)
from edgedd.storage.quantize import packed_size
from edgedd.storage.set_tensors import tensor_specs

SHAPE = (3, 13, 14)
EVEN = (3, 10, 14)
COUNT = 36
EXAMPLES = {
    "pixels": [Pixels(SHAPE), Pixels(SHAPE, 16)],
    "formation": [Formation(SHAPE), Formation(SHAPE, 3, 16)],
    "shared_basis": [SharedBasis(SHAPE, 6), SharedBasis(SHAPE, 4, 5, 4), SharedBasis(SHAPE, 12, 3, 16)],
    "dct": [DCT(SHAPE, 5), DCT(SHAPE, 13, 2), DCT(SHAPE, 1, 16)],
    "low_rank": [LowRank(SHAPE, 4), LowRank(SHAPE, 3, 5, 4), LowRank(SHAPE, 10, 2, 16)],
}
HALF = [SharedBasis(EVEN, 6, half=True), SharedBasis(EVEN, 5, 4, 4, half=True)]
ALL = [*(form for kind in PARAMETERIZATIONS for form in EXAMPLES[kind]), *HALF]
ROWS = [slice(None), slice(3, 7), np.array([4, 0, 9, 4]), np.array([-1, 2]), slice(0, 0)]


def pictures(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Smooth images: random ones with falling Fourier coefficients."""
    generator = np.random.default_rng(seed)
    _, height, width = shape
    decay = 1 / (1 + np.arange(height)[:, None] + np.arange(width))
    waves_y = np.cos(np.pi * np.outer(np.arange(height) + 0.5, np.arange(height)) / height)
    waves_x = np.cos(np.pi * np.outer(np.arange(width) + 0.5, np.arange(width)) / width)
    return (waves_y @ (generator.normal(size=(count, *shape)) * decay) @ waves_x.T).astype(np.float32)


@pytest.mark.parametrize("form", ALL, ids=str)
def test_torch_and_numpy_decode_alike(form) -> None:
    factors = form.encode(pictures(COUNT, form.shape))
    assert {name: values.shape for name, values in factors.items()} == form.factor_shapes(COUNT)
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in factors.items()}
    for rows in ROWS:
        here, there = form.decode(factors, rows), form.decode(tensors, rows)
        np.testing.assert_allclose(there.detach().numpy(), here, rtol=0, atol=1e-5)
    form.decode(tensors, np.arange(COUNT)).square().sum().backward()
    assert all(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0) for tensor in tensors.values())


@pytest.mark.parametrize("form", ALL, ids=str)
def test_rows_equal_the_slice(form) -> None:
    factors = form.encode(pictures(COUNT, form.shape))
    whole = form.decode(factors, slice(None))
    for rows in ROWS:
        part = form.decode(factors, rows)
        assert part.shape == whole[rows].shape
        np.testing.assert_allclose(part, whole[rows], rtol=0, atol=1e-5)


def test_decode_is_left_core_right() -> None:
    form = LowRank(SHAPE, 3, 2)
    generator = np.random.default_rng(1)
    factors = {name: generator.normal(size=shape) for name, shape in form.factor_shapes(5).items()}
    images = form.decode(factors, slice(None))
    for i, s in enumerate([0, 0, 0, 1, 1]):  # floor(2 i / 5)
        for c in range(3):
            wanted = factors["left"][s] @ factors["core"][i, c] @ factors["right"][s]
            np.testing.assert_allclose(images[i, c], wanted, atol=1e-12)


def test_decode_is_the_inverse_of_the_cosine_transform() -> None:
    """The sums of docs/format.md, term by term; and frequencies that are not stored are what an image loses."""

    def t(size: int, k: int, j: int) -> float:
        return np.sqrt((1 if k == 0 else 2) / size) * np.cos(np.pi * k * (2 * j + 1) / (2 * size))

    form = DCT((3, 8, 9), 2)
    values = np.random.default_rng(1).normal(size=(2, 3, 2, 2)).astype(np.float32)
    images = form.decode({"coefficients": values}, slice(None))
    for place in ((0, 0, 0), (2, 7, 8), (1, 3, 5)):
        waves = [[t(n, k, j) for k in range(r)] for n, r, j in zip((3, 8, 9), (3, 2, 2), place, strict=True)]
        terms = [(d, p, q, waves[0][d] * waves[1][p] * waves[2][q]) for d, p, q in np.ndindex(3, 2, 2)]
        wanted = [sum(image[d, p, q] * wave for d, p, q, wave in terms) for image in values]
        np.testing.assert_allclose(images[:, *place], wanted, atol=1e-5)
    pixels = pictures(5, (3, 8, 8))
    kept = [form.encode(pixels)["coefficients"] for form in (DCT((3, 8, 8), 3), DCT((3, 8, 8), 8))]
    lost = np.square(pixels - DCT((3, 8, 8), 3).decode({"coefficients": kept[0]}, slice(None))).sum()
    assert np.isclose(lost, np.square(kept[1]).sum() - np.square(kept[0]).sum(), rtol=1e-4)


@pytest.mark.parametrize("f", [2, 3])
def test_a_formation_is_tiles_upsampled_by_torch(f: int) -> None:
    form = Formation(SHAPE, f)
    stored = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    images = form.decode({"images": stored}, slice(None))
    edges = {2: ([0, 7, 13], [0, 7, 14]), 3: ([0, 5, 9, 13], [0, 5, 10, 14])}[f]  # the first tiles are the longer ones
    for i in range(2 * f * f):
        row, column = i % (f * f) // f, i % f
        tall, wide = (slice(*side[k : k + 2]) for side, k in zip(edges, (row, column), strict=True))
        tile = torch.tensor(stored[i // (f * f)][None, :, tall, wide])
        wanted = torch.nn.functional.interpolate(tile, SHAPE[1:], mode="bilinear", align_corners=False)
        np.testing.assert_allclose(images[i], wanted[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("f", [2, 3])
def test_a_formation_keeps_what_was_upsampled_and_errs_least_otherwise(f: int) -> None:
    form = Formation(SHAPE, f)
    once = form.decode(form.encode(pictures(COUNT)), slice(None))
    np.testing.assert_allclose(form.decode(form.encode(once), slice(None)), once, rtol=0, atol=1e-5)
    flat = np.broadcast_to(np.arange(COUNT, dtype=np.float32)[:, None, None, None], (COUNT, *SHAPE))
    np.testing.assert_allclose(form.decode(form.encode(flat), slice(None)), flat, rtol=0, atol=1e-4)
    leaf = torch.tensor(form.encode(pictures(COUNT))["images"], requires_grad=True)
    (form.decode({"images": leaf}, slice(None)) - torch.tensor(pictures(COUNT))).square().sum().backward()
    assert leaf.grad is not None and float(leaf.grad.abs().max()) < 1e-3


@pytest.mark.parametrize(
    "form",
    [Pixels((1, 9, 9)), LowRank((1, 9, 9), 9), LowRank((1, 9, 9), 9, 3), SharedBasis((1, 9, 9), 81), DCT((3, 9, 9), 9)],
    ids=str,
)
def test_full_rank_is_the_identity(form) -> None:
    images = pictures(max(6, form.least_count), form.shape)
    np.testing.assert_allclose(form.decode(form.encode(images), slice(None)), images, rtol=0, atol=1e-5)


def test_decode_is_a_mixture_of_basis_pictures() -> None:
    form = SharedBasis(EVEN, 2, 2, half=True)
    generator = np.random.default_rng(1)
    factors = {name: generator.normal(size=shape).astype(np.float32) for name, shape in form.factor_shapes(5).items()}
    images = form.decode(factors, slice(None))
    for i, s in enumerate([0, 0, 0, 1, 1]):  # floor(2 i / 5)
        one, two = factors["coefficients"][i]
        low = torch.tensor(one * factors["basis"][s, 0] + two * factors["basis"][s, 1] + factors["mean"][s])
        wanted = torch.nn.functional.interpolate(low[None], scale_factor=2, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(images[i], wanted[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", [SharedBasis(SHAPE, 5), *HALF], ids=str)
def test_a_shared_basis_errs_least(form: SharedBasis) -> None:
    """The encoding is a minimum: the error's gradient is 0 there, and what is lost are the smallest singular values."""
    images = pictures(COUNT, form.shape)
    leaves = {name: torch.tensor(values, requires_grad=True) for name, values in form.encode(images).items()}
    error = (form.decode(leaves, slice(None)) - torch.tensor(images)).square().sum()
    error.backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.abs().max() < 1e-6 * error.item(), name
    if not form.half:
        values = np.linalg.svd((images - images.mean(0)).reshape(COUNT, -1), compute_uv=False)
        assert np.isclose(error.item(), np.square(values[form.rank :]).sum(), rtol=1e-4)


FAMILIES = [[LowRank(SHAPE, rank, subspaces) for rank in (1, 2, 4, 7, 10)] for subspaces in (1, 3)] + [
    [SharedBasis(EVEN, rank, 2, half=half) for rank in (1, 2, 4, 8)] for half in (False, True)
]


@pytest.mark.parametrize("forms", FAMILIES, ids=lambda forms: str(forms[0]))
def test_the_encoding_error_falls_with_the_rank(forms: list) -> None:
    images = pictures(18, forms[0].shape)
    errors = []
    for form in forms:
        errors.append(float(np.square(form.decode(form.encode(images), slice(None)) - images).sum()))
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_counted_bytes_are_file_bytes(kind: str, bits: int) -> None:
    form = replace(EXAMPLES[kind][-1], bits=bits)
    synthetic = tiny_sets.random_set(form, 2, COUNT // 2, seed=0)
    width = {"F32": 4, "F16": 2, "U8": 1}
    counted = sum(width[dtype] * int(np.prod(shape)) for dtype, shape in tensor_specs(form, COUNT, 2).values())
    content = synthetic.to_bytes()
    assert len(content) == synthetic.nbytes == 8 + int.from_bytes(content[:8], "little") + counted


def test_bytes_by_hand() -> None:
    specs = tensor_specs(LowRank((3, 32, 32), 8, 4, 4), 100, 10)
    assert specs["factors.core"] == ("U8", (100 * 3 * 8 * 8 // 2,)) and packed_size(3, 2) == 1
    assert specs["scale.core"] == ("F16", (1, 3, 8, 8)) and specs["factors.left"] == ("F16", (4, 32, 8))
    assert tensor_specs(Pixels((3, 32, 32)), 100, 10)["factors.images"] == ("U8", (100, 3, 32, 32))
    specs = tensor_specs(SharedBasis((3, 32, 32), 16, 2, 2, half=True), 100, 10)
    assert specs["factors.coefficients"] == ("U8", (100 * 16 // 4,)) and specs["scale.coefficients"] == ("F16", (1, 16))
    assert specs["factors.basis"] == ("F16", (2, 16, 3, 16, 16)) and specs["factors.mean"] == ("F16", (2, 3, 16, 16))
    assert tensor_specs(Formation((3, 32, 32)), 400, 10)["factors.images"] == ("U8", (100, 3, 32, 32))


@pytest.mark.parametrize("form", ALL, ids=str)
def test_a_dict_and_back(form) -> None:
    assert parameterization_from_dict(form.as_dict()) == form


BASIS = {"kind": "shared_basis", "shape": [1, 8, 8], "bits": 8, "rank": 2, "subspaces": 1, "half": True}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"kind": "wavelets"}, "kind='wavelets', wanted one of pixels, formation, low_rank, shared_basis"),
        ({"kind": "pixels", "shape": [1, 8, 8]}, "unknown or missing keys .bits."),
        ({"kind": "pixels", "shape": [2, 8, 8], "bits": 8}, "wanted 1 or 3 channels"),
        ({"kind": "pixels", "shape": [1, 7, 8], "bits": 8}, "sides of 8..96"),
        ({"kind": "pixels", "shape": 8, "bits": 8}, "wanted .channels, height, width."),
        ({"kind": "pixels", "shape": [1, 8, 8], "bits": True}, "bits=True"),
        ({"kind": "formation", "shape": [1, 8, 12], "bits": 8, "formation": 3}, r"formation=3.*\[2, 2\]"),
        ({"kind": "formation", "shape": [1, 8, 12], "bits": 8, "formation": 2.0}, "formation=2.0"),
        ({"kind": "low_rank", "shape": [1, 8, 12], "bits": 8, "rank": 9, "subspaces": 1}, r"rank=9.*\[1, 8\]"),
        ({"kind": "low_rank", "shape": [1, 8, 8], "bits": 8, "rank": 2, "subspaces": 0}, "subspaces=0"),
        (BASIS | {"rank": 17}, r"rank=17.*\[1, 16\] for basis pictures of 1x4x4"),
        (BASIS | {"half": 1}, "half=1, wanted true or false"),
        (BASIS | {"shape": [1, 8, 9]}, "half of 1x8x9 images, wanted even sides"),
        (BASIS | {"subspaces": 65_537}, "subspaces=65537"),
    ],
)
def test_impossible_values_are_refused(values: dict, wanted: str) -> None:
    with pytest.raises(SettingError, match=wanted):
        parameterization_from_dict(values)


def test_images_of_another_shape_and_too_few_images_are_refused() -> None:
    with pytest.raises(SettingError, match="images of shape"):
        Pixels(SHAPE).encode(np.zeros((2, 3, 8, 8)))
    with pytest.raises(SettingError, match="2 images for 3 subspaces"):
        LowRank(SHAPE, 2, 3).encode(np.zeros((2, *SHAPE)))
    with pytest.raises(SettingError, match="6 images, wanted a multiple of 4"):
        Formation(SHAPE, 2).encode(np.zeros((6, *SHAPE)))
    with pytest.raises(SettingError, match="6 images for 2 x 4 basis pictures"):
        SharedBasis(SHAPE, 4, 2).encode(np.zeros((6, *SHAPE)))
