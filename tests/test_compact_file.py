"""The compact file: the inverse of writing, golden bytes, near the entropy, and hostile files refused."""

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import compact_reader
import numpy as np
import pytest
import tiny_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from test_set_file import FORMS
from typer.testing import CliRunner

from edgedd.bundles.files import SET
from edgedd.cli import app
from edgedd.device import Student
from edgedd.errors import LONGEST_MESSAGE, FormatError
from edgedd.exporting import export
from edgedd.inspection import inspect
from edgedd.parameterization import DCT, LowRank, Parameterization, SharedBasis
from edgedd.storage import compact_file, quantize, set_file
from edgedd.storage.code_model import code_coefficients, lanes_for
from edgedd.storage.rans import Decoder, Encoder
from edgedd.synthetic_set import SyntheticSet, quantize_labels

PAGE = Path(__file__).parent.parent / "docs" / "format.md"
GOLDEN = Path(__file__).parent / "golden" / "tiny_compact.edd"
WHOLE = GOLDEN.read_bytes()


@settings(max_examples=7, deadline=None)
@given(form=FORMS, num_classes=st.integers(2, 5), ipc=st.integers(2, 3))
def test_compact_and_plain_hold_the_same_set(form, num_classes, ipc, tmp_path_factory) -> None:
    saved = tiny_sets.random_set(form, num_classes, ipc * form.per_stored, seed=ipc)
    path = tmp_path_factory.mktemp("sets") / "set.edd"
    saved.packed().save(path)
    loaded = SyntheticSet.load(path)
    assert loaded.compact and loaded.nbytes == path.stat().st_size
    assert loaded.to_bytes() == path.read_bytes()
    assert loaded.packed(compact=False).to_bytes() == saved.to_bytes()


def test_the_golden_set_gives_the_golden_bytes_and_back() -> None:
    assert tiny_sets.golden().packed().to_bytes() == WHOLE
    assert SyntheticSet.load(GOLDEN).packed(compact=False).to_bytes() == tiny_sets.golden().to_bytes()


@pytest.mark.parametrize("levels", [255, 51, 17, 3, 1])
def test_labels_of_few_levels_take_fewer_bytes_and_stay_nearest(levels: int) -> None:
    labels = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 200)
    stored = quantize_labels(labels, levels)
    assert (stored.sum(1) == 255).all() and not (stored % (255 // levels)).any()
    assert np.abs(stored / 255 - labels).max() < 1 / levels
    saved = tiny_sets.random_set(DCT((1, 8, 8), 2), 10, 20, seed=0)
    few, all_levels = (
        replace(saved, tensors={**saved.tensors, "labels": each}) for each in (stored, quantize_labels(labels))
    )
    assert few.label_levels == levels
    assert few.packed().nbytes < all_levels.packed().nbytes - 100 or levels == 255


def dictionary_of_the_page() -> bytes:
    return re.search(r"```text\n(.*)\n```", PAGE.read_text())[1].encode()


@pytest.mark.parametrize(
    ("form", "ipc"),
    [(DCT((1, 8, 8), 3, 8), 480), (LowRank((3, 8, 8), 2, 1, 4), 5), (SharedBasis((1, 8, 8), 2, 1, 2), 3)],
    ids=["dct", "low_rank", "shared_basis"],
)
def test_a_reader_written_from_the_page_finds_the_same_codes_and_labels(form: Parameterization, ipc: int) -> None:
    saved = tiny_sets.random_set(form, 3, ipc, seed=0)
    ((name, shape),) = ((n, form.factor_shapes(saved.count)[n]) for n in form.scale_shapes(saved.count))
    places = (1, 1, 1, *shape[1:])[-3:]
    found = compact_reader.read(saved.packed().to_bytes(), dictionary_of_the_page(), places)
    codes = quantize.unpack(saved.tensors[f"factors.{name}"], form.bits, (saved.count, *places))
    assert found["finished"] and found["labels"] == saved.tensors["labels"].tolist()
    assert all(found["codes"][place] == codes[:, *place].tolist() for place in np.ndindex(*places))


def test_a_reader_written_from_the_page_reads_the_golden_file() -> None:
    found, wanted = compact_reader.read(WHOLE, dictionary_of_the_page(), (1, 2, 2)), tiny_sets.golden()
    assert found["finished"] and found["labels"] == [[250, 5], [0, 255]]
    assert [found["codes"][0, p, q] for p in (0, 1) for q in (0, 1)] == [[3, 8], [10, 0], [15, 7], [1, 12]]
    assert found["about"]["classes"] == ["zero", "één"]
    assert json.dumps(found["about"]["recipe"]) == json.dumps(wanted.recipe.as_dict())
    names = ("factors.left", "factors.right", "mean", "scale.core", "std")
    planes = [
        wanted.tensors[name].reshape(-1).view(np.uint8).reshape(wanted.tensors[name].size, -1).T for name in names
    ]
    assert found["floats"] == b"".join(each.tobytes() for each in planes)


def laplacian_codes(count: int, mean: float) -> tuple[np.ndarray, float]:
    """Codes of frequencies that fall off, and the bytes that whoever knows their distributions needs."""
    size = mean / (1 + np.arange(6)[:, None] + np.arange(6))
    values = np.rint(np.random.default_rng(0).laplace(size=(count, 1, 6, 6)) * size)
    outer, inner = np.exp(-(np.abs(values) + 0.5) / size), np.exp(-np.abs(np.abs(values) - 0.5) / size)
    share = np.where(values == 0, 1 - outer, (inner - outer) / 2)
    return np.clip(values + 128, 0, 255).astype(np.uint8), float(-np.log2(share).sum() / 8)


@pytest.mark.parametrize("mean", [0.5, 4, 20])
def test_coded_bytes_are_near_the_entropy_of_each_coefficient(mean: float) -> None:
    codes, entropy = laplacian_codes(300, mean)
    encoder = Encoder(lanes_for(codes.size))
    code_coefficients(encoder, codes.shape, 8, codes)
    states, words, bits = encoder.finish()
    assert states.nbytes + words.nbytes + bits.nbytes < 1.04 * entropy + 40
    decoder = Decoder(states, words, bits)
    assert np.array_equal(code_coefficients(decoder, codes.shape, 8, None), codes)
    decoder.check_end()


def test_pack_is_the_way_there_and_back(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("plain.safetensors", "small.edd", "again.safetensors")]
    saved = tiny_sets.random_set(DCT((1, 8, 8), 5), 2, 10, seed=0)
    saved.save(names[0])
    runner = CliRunner()
    shown = runner.invoke(app, ["pack", names[0], "-o", names[1], "--json"])
    assert shown.exit_code == 0 and json.loads(shown.stdout)["bytes"] == Path(names[1]).stat().st_size
    assert runner.invoke(app, ["pack", names[1], "-o", names[2], "--plain"]).exit_code == 0
    assert Path(names[2]).read_bytes() == saved.to_bytes() and Path(names[1]).read_bytes()[:4] == compact_file.MAGIC


def test_a_bundle_with_a_compact_set_trains(tmp_path: Path) -> None:
    saved = tiny_sets.random_set(DCT((3, 8, 8), 5), 3, 4, seed=0)
    logits = []
    for compact in (False, True):
        export(saved.packed(compact), tmp_path / str(compact), student="convnet1-w4")
        student = Student.load(tmp_path / str(compact), threads=1)
        student.fit(steps=2)
        logits.append(student.predict(np.zeros((2, 8, 8, 3), np.uint8)))
    assert (tmp_path / "True" / SET).stat().st_size < (tmp_path / "False" / SET).stat().st_size
    assert np.array_equal(*logits)


def test_inspection_says_both_sizes(tmp_path: Path) -> None:
    saved = tiny_sets.random_set(DCT((1, 8, 8), 5), 2, 10, seed=0)
    for compact, name in ((False, "set.safetensors"), (True, "set.edd")):
        saved.packed(compact).save(tmp_path / name)
        found = inspect(tmp_path / name)
        assert found["bytes"] == sum(found["parts"].values()) == (tmp_path / name).stat().st_size
        assert (found["plain_bytes"], found["compact_bytes"]) == (saved.nbytes, saved.packed().nbytes)


def inflated(content: bytes = WHOLE) -> tuple[bytes, bytes]:
    reader = zlib.decompressobj(-15, compact_file.DICTIONARY)
    return reader.decompress(content[4:]), reader.unused_data


def framed(front: bytes, coded: bytes = inflated()[1]) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, compact_file.DICTIONARY)
    return compact_file.MAGIC + squeezer.compress(front) + squeezer.flush() + coded


FRONT = inflated()[0]
TEXT, REST = FRONT.split(b"\0", 1)
HOSTILE = {
    "magic alone": (WHOLE[:4], "header has no end"),
    "cut in the header": (WHOLE[:60], "header has no end"),
    "not deflated": (compact_file.MAGIC + b"\xff" * 50, "does not inflate"),
    "a bomb": (framed(TEXT + b" " * 2**22), "too late a one"),
    "no counts": (framed(TEXT + b"\0"), "ends too early"),
    "metadata is not UTF-8": (framed(b"\xff\xfe\0" + REST), "not UTF-8"),
    "metadata is no JSON": (framed(b"{\0" + REST), "not JSON"),
    "higher version": (framed(FRONT.replace(b'"version":1', b'"version":9')), "format version 9"),
    "label step": (framed(TEXT + b"\0" + REST[:8] + b"\x02" + REST[9:]), "label step 2"),
    "no images": (framed(TEXT + b"\0" + bytes(4) + REST[4:]), "0 images"),
    "odd images": (framed(TEXT + b"\0\x03" + REST[1:]), "3 images"),
    "many images": (framed(TEXT + b"\0" + (2**30).to_bytes(4, "little") + REST[4:]), "codes in"),
    "many words": (framed(TEXT + b"\0" + REST[:4] + b"\xff" * 4 + REST[8:]), "ends too early"),
    "float tensors cut": (framed(FRONT[:-1]), "is cut off"),
    "float tensors too long": (framed(FRONT + b"\0"), "1 bytes behind the float tensors"),
    "NaN mean": (framed(TEXT + b"\0" + REST[:9] + b"\xff" * (len(REST) - 9)), "not finite"),
    "last byte missing": (WHOLE[:-1], "ends too early"),
    "trailing byte": (WHOLE + b"\0", "does not end where it should"),
    "state out of range": (framed(FRONT, bytes(4) + inflated()[1][4:]), "begins outside its range"),
    "words changed": (WHOLE[:-6] + b"\xaa" + WHOLE[-5:], ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_in_one_bounded_line(case: str, tmp_path: Path) -> None:
    content, wanted = HOSTILE[case]
    path = tmp_path / "set.edd"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        SyntheticSet.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and wanted in message
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE


def test_damage_raises_format_error_or_loads() -> None:
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        content = bytearray(WHOLE)
        for position in generator.integers(4, len(content), generator.integers(1, 4)):
            content[position] ^= 1 << generator.integers(8)
        try:
            SyntheticSet(**set_file.parse(bytes(content))).images(slice(None))
        except (FormatError, set_file.SettingError):
            refused += 1
    assert refused > 25
