"""The file of a synthetic set: golden bytes, an independent reader, and the inverse of saving."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedd.errors import FormatError, SettingError
from edgedd.parameterization import DCT, Formation, LowRank, Pixels, SharedBasis
from edgedd.synthetic_set import SyntheticSet

GOLDEN = Path(__file__).parent / "golden" / "tiny_low_rank.safetensors"
GOLDEN_BASIS = GOLDEN.with_name("tiny_shared_basis.safetensors")
FORMAT_PAGE = Path(__file__).parent.parent / "docs" / "format.md"


def test_the_golden_set_gives_the_golden_bytes() -> None:
    assert tiny_sets.golden().to_bytes() == GOLDEN.read_bytes()
    assert tiny_sets.golden_shared_basis().to_bytes() == GOLDEN_BASIS.read_bytes()


def test_the_format_page_prints_the_golden_file() -> None:
    lines = [line for line in FORMAT_PAGE.read_text().splitlines() if line[:8].startswith("00000") and "|" in line]
    assert bytes.fromhex("".join(line[8:58].replace(" ", "") for line in lines)) == GOLDEN.read_bytes()


def read_by_the_page(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a low-rank file in 4 bits, written from docs/format.md alone."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header.pop("__metadata__")["edgedd"])
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = {"F32": "<f4", "F16": "<f2", "U8": "u1"}[entry["dtype"]]
        tensors[name] = np.frombuffer(content[begin:end], dtype).reshape(entry["shape"]).tolist()
    form = about["parameterization"]
    (channels, height, width), r, subspaces = form["shape"], form["rank"], form["subspaces"]
    n = len(tensors["labels"])
    images = np.zeros((n, channels, height, width))
    for i in range(n):
        s = i * subspaces // n
        left, right = tensors["factors.left"][s], tensors["factors.right"][s]
        for c in range(channels):
            for p in range(r):
                for q in range(r):
                    j = ((i * channels + c) * r + p) * r + q
                    code = tensors["factors.core"][j * 4 // 8] >> (j * 4 % 8) & 15
                    value = tensors["scale.core"][0][c][p][q] * (code - 8)
                    for y in range(height):
                        for x in range(width):
                            images[i, c, y, x] += left[y][p] * value * right[q][x]
    return images, np.array(tensors["labels"]) / 255


def test_an_independent_reader_decodes_the_golden_file() -> None:
    images, labels = read_by_the_page(GOLDEN.read_bytes())
    synthetic = SyntheticSet.load(GOLDEN)
    np.testing.assert_allclose(synthetic.images(slice(None)), images, rtol=0, atol=1e-6)
    np.testing.assert_allclose(synthetic.soft_labels(slice(None)), labels, rtol=0, atol=1e-6)
    assert synthetic.classes == ("zero", "één")


def upsampled_by_the_page(low: list[list[float]], height: int, width: int) -> list[list[float]]:
    """From lists of rows to lists of rows, one axis after the other."""

    def stretched(line: list[float], length: int) -> list[float]:
        t, out = len(line), []
        for y in range(length):
            p = min(max((y + 1 / 2) * t / length - 1 / 2, 0), t - 1)
            out.append(sum(max(0, 1 - abs(p - u)) * value for u, value in enumerate(line)))
        return out

    tall = zip(*(stretched(list(column), height) for column in zip(*low, strict=True)), strict=True)
    return [stretched(list(row), width) for row in tall]


def test_the_pages_mixture_and_tiles_are_what_is_decoded() -> None:
    synthetic = SyntheticSet.load(GOLDEN_BASIS)
    values, basis, mean = (synthetic.factors[name].tolist() for name in ("coefficients", "basis", "mean"))
    assert [row[0] for row in values] == [-0.75, 0.25, -0.25, 0.75]
    for i in range(4):
        s = i * 2 // 4
        low = [[mean[s][0][y][x] + values[i][0] * basis[s][0][0][y][x] for x in range(4)] for y in range(4)]
        got = synthetic.images(np.array([i]))[0, 0]
        np.testing.assert_allclose(got, upsampled_by_the_page(low, 8, 8), rtol=0, atol=1e-6)
    assert synthetic.images(np.array([0]))[0, 0, 0, :2].tolist() == [0, -1 / 128]
    form = Formation((1, 9, 11), 2, 16)
    stored = np.random.default_rng(0).normal(size=(2, 1, 9, 11)).astype(np.float32)
    images = form.decode({"images": stored}, slice(None))
    for i in range(8):
        row, column = i % 4 // 2, i % 2
        tall, wide = ((0, 5), (5, 9))[row], ((0, 6), (6, 11))[column]
        tile = stored[i // 4, 0, slice(*tall), slice(*wide)].tolist()
        np.testing.assert_allclose(images[i, 0], upsampled_by_the_page(tile, 9, 11), rtol=0, atol=1e-6)


def test_a_set_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    synthetic = tiny_sets.golden()
    path = tmp_path / "set.safetensors"
    bad = {**synthetic.tensors, "mean": np.array([np.nan], np.float32)}
    with pytest.raises(FormatError, match="tensor mean has a value that is not finite"):
        SyntheticSet(synthetic.parameterization, bad, synthetic.recipe, synthetic.classes).save(path)
    for provenance in ({"loss": math.nan}, {"when": object()}, {"text": "\ud800"}):
        unwritable = SyntheticSet(
            synthetic.parameterization, synthetic.tensors, synthetic.recipe, synthetic.classes, provenance
        )
        with pytest.raises(SettingError, match="cannot be written as JSON"):
            unwritable.save(path)
    assert not path.exists()


SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(8, 17), st.integers(8, 17))
FEW_BITS = st.sampled_from([16, 8, 4, 2])
FORMS = st.one_of(
    st.builds(Pixels, SHAPES, FEW_BITS),
    st.builds(SharedBasis, SHAPES, st.just(2), st.integers(1, 2), FEW_BITS),
    st.builds(Formation, SHAPES, st.just(2), FEW_BITS),
    st.builds(DCT, SHAPES, st.integers(1, 8), FEW_BITS),
    st.builds(LowRank, SHAPES, st.integers(1, 8), st.integers(1, 4), FEW_BITS),
)


@settings(max_examples=60, deadline=None)
@given(form=FORMS, num_classes=st.integers(2, 5), ipc=st.integers(2, 3))
def test_loading_is_the_inverse_of_saving(form, num_classes, ipc, tmp_path_factory) -> None:
    saved = tiny_sets.random_set(form, num_classes, ipc * form.per_stored, seed=ipc)
    path = tmp_path_factory.mktemp("sets") / "set.safetensors"
    saved.save(path)
    loaded = SyntheticSet.load(path)
    assert path.stat().st_size == saved.nbytes == loaded.nbytes
    assert (loaded.parameterization, loaded.recipe, loaded.classes) == (form, saved.recipe, saved.classes)
    assert loaded.provenance == saved.provenance and loaded.tensors.keys() == saved.tensors.keys()
    for name, values in saved.tensors.items():
        assert loaded.tensors[name].dtype == values.dtype and np.array_equal(loaded.tensors[name], values)
    assert loaded.to_bytes() == path.read_bytes()
