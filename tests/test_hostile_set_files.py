"""Damaged and hostile synthetic-set files: each is refused by name, in one bounded line, and nothing else happens."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edgedd.errors import LONGEST_MESSAGE, FormatError
from edgedd.synthetic_set import SyntheticSet

GOLDEN = Path(__file__).parent / "golden" / "tiny_low_rank.safetensors"


def altered(header_change=None, data_change=None) -> bytes:
    """The golden file with its header (a dict, metadata parsed) or its data (a bytearray) changed."""
    content = GOLDEN.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    header["__metadata__"] = {"edgedd": json.loads(header["__metadata__"]["edgedd"])}
    if header_change:
        header_change(header)
    if data_change:
        data_change(data)
    if "edgedd" in header.get("__metadata__", {}):
        header["__metadata__"]["edgedd"] = json.dumps(header["__metadata__"]["edgedd"])
    return framed(json.dumps(header), bytes(data))


def framed(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + data


def meta(change) -> bytes:
    return altered(lambda header: change(header["__metadata__"]["edgedd"]))


def entry(name: str, **values: object) -> bytes:
    return altered(lambda header: header[name].update(values))


def put(offset: int, values: bytes) -> bytes:
    def change(data: bytearray) -> None:
        data[offset : offset + len(values)] = values

    return altered(None, change)


def twice(key: str) -> bytes:
    """The golden file with `key` of the header standing twice."""
    content = altered()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].decode()
    again = json.dumps({key: json.loads(text)[key]})[:-1]
    return framed(again + ", " + text[1:], content[8 + length :])


WHOLE = GOLDEN.read_bytes()
WHOLE_BASIS = GOLDEN.with_name("tiny_shared_basis.safetensors").read_bytes()
FORMATION = {"kind": "formation", "shape": [1, 8, 8], "formation": 2, "bits": 4}
BASIS = {"kind": "shared_basis", "shape": [3, 32, 32], "rank": 3072, "subspaces": 65536, "half": False, "bits": 2}
DEEP = "[" * 100_000
HOSTILE = {
    "empty": (b"", "header does not fit"),
    "seven bytes": (WHOLE[:7], "header does not fit"),
    "cut in the header": (WHOLE[:400], "header does not fit"),
    "cut after the header": (WHOLE[:880], "truncated or altered"),
    "last byte missing": (WHOLE[:-1], "truncated or altered"),
    "trailing byte": (WHOLE + b"\0", "truncated or altered"),
    "header length lies high": (b"\xff" * 8 + WHOLE[8:], "header does not fit"),
    "header length lies low": (bytes([100, 0, 0, 0, 0, 0, 0, 0]) + WHOLE[8:], "header is not JSON"),
    "header is not UTF-8": (framed("{}").replace(b"{}", b"\xff\xfe"), "not UTF-8"),
    "header is a list": (framed("[1]"), "not a JSON object"),
    "header nests deeply": (framed(DEEP), "more than 8192 values or 2048 objects and lists"),
    "header nests less deeply": (framed(DEEP[:2000]), "header is not JSON"),
    "header of many values": (framed("[" + "1," * 8193 + "1]"), "more than 8192 values"),
    "header number of 5000 digits": (framed('{"a": ' + "9" * 5000 + "}"), "header is not JSON"),
    "tensor twice": (twice("mean"), "a key stands twice"),
    "metadata twice": (twice("__metadata__"), "a key stands twice"),
    "no metadata": (altered(lambda h: h.pop("__metadata__")), "no metadata key 'edgedd'"),
    "other metadata": (altered(lambda h: h["__metadata__"].update(format="pt")), "no metadata key 'edgedd' alone"),
    "metadata is no JSON": (altered(lambda h: h.update({"__metadata__": {"edgedd": {}}})), "metadata version=None"),
    "unknown key": (meta(lambda m: m.update(extra=1)), "unknown or missing keys (extra)"),
    "missing key": (meta(lambda m: m.pop("classes")), "unknown or missing keys (classes)"),
    "higher version": (meta(lambda m: m.update(version=4)), "format version 4, this edgedd reads up to 3: upgrade"),
    "version true": (meta(lambda m: m.update(version=True)), "metadata version=True"),
    "NaN": (meta(lambda m: m["recipe"].update(momentum=float("nan"))), "metadata edgedd is not JSON"),
    "infinity": (meta(lambda m: m["provenance"].update(x=math.inf)), "metadata edgedd is not JSON"),
    "half a surrogate": (meta(lambda m: m.update(classes=["a", "\ud800"])), "metadata edgedd is not JSON"),
    "unknown recipe key": (meta(lambda m: m["recipe"].update(command="rm")), "unknown or missing keys (command)"),
    "missing recipe key": (meta(lambda m: m["recipe"].pop("steps")), "unknown or missing keys (steps)"),
    "impossible recipe": (meta(lambda m: m["recipe"].update(steps=0)), "recipe steps=0"),
    "augmentation": (meta(lambda m: m["recipe"]["augmentation"].update(os=1)), "unknown key 'os'"),
    "recipe is a list": (meta(lambda m: m.update(recipe=[])), "recipe is not an object"),
    "unknown kind": (meta(lambda m: m["parameterization"].update(kind="pickle")), "kind='pickle'"),
    "kind is a list": (meta(lambda m: m["parameterization"].update(kind=[])), "kind=[]"),
    "kind of version 2": (meta(lambda m: m.update(parameterization=FORMATION)), "in a file of format version 1"),
    "cut formation": (
        meta(lambda m: m.update(version=2, parameterization=FORMATION)),
        "2 images, wanted a multiple of 4",
    ),
    "formation of two classes": (
        altered(
            lambda h: (
                h["__metadata__"]["edgedd"].update(version=2, parameterization=FORMATION),
                h["labels"].update(shape=[4, 2]),
            )
        ),
        "4 images of 2 classes, wanted a multiple of 4 a class",
    ),
    "more basis pictures than images": (
        meta(lambda m: m.update(version=2, parameterization=BASIS)),
        "2 images for 65536 x 3072 basis pictures",
    ),
    "3 bits": (meta(lambda m: m["parameterization"].update(bits=3)), "bits=3"),
    "rank 9": (meta(lambda m: m["parameterization"].update(rank=9)), "rank=9"),
    "subspaces": (meta(lambda m: m["parameterization"].update(subspaces=3)), "2 images for 3 subspaces"),
    "sides": (meta(lambda m: m["parameterization"].update(shape=[1, 8, 10**9])), "sides of 8..96"),
    "equal classes": (meta(lambda m: m.update(classes=["a", "a"])), "classes has 2 names"),
    "three classes": (
        meta(lambda m: m.update(classes=["a", "b", "c"])),
        "tensor labels is U8 (2, 2), wanted U8 (n, 3)",
    ),
    "control character": (meta(lambda m: m.update(classes=["a", "\x1b[2J"])), r"class name '\x1b[2J'"),
    "missing tensor": (altered(lambda h: h.pop("std")), "tensor std is missing"),
    "extra tensor": (altered(lambda h: h.update(evil=h["std"])), "unknown tensor evil"),
    "tensor is a number": (altered(lambda h: h.update(evil=1)), "tensor evil has unknown or missing keys"),
    "wrong dtype": (entry("mean", dtype="F16", shape=[2]), "tensor mean is F16 (2,), wanted F32 (1,)"),
    "unknown dtype": (entry("mean", dtype="F64"), "dtype 'F64'"),
    "dtype is a list": (entry("mean", dtype=[]), "dtype []"),
    "wrong shape": (entry("mean", shape=[1, 1]), "tensor mean is F32 (1, 1), wanted F32 (1,)"),
    "huge labels": (entry("labels", shape=[2**27, 2]), "tensor factors.core is U8 (4,)"),
    "overflowing shape": (entry("labels", shape=[2**62, 2]), "tensor labels has shape"),
    "negative shape": (entry("labels", shape=[-2, 2]), "tensor labels has shape"),
    "overlap": (entry("labels", data_offsets=[144, 148]), "not a valid safetensors file"),
    "offset beyond the end": (entry("labels", data_offsets=[148, 2**60]), "not a valid safetensors file"),
    "offsets are text": (entry("labels", data_offsets="x"), "not a valid safetensors file"),
    "NaN mean": (put(0, np.float32("nan").tobytes()), "tensor mean has a value that is not finite"),
    "zero std": (put(4, bytes(4)), "tensor std has a value that is not positive"),
    "negative scale": (put(136, np.float16(-1).tobytes()), "tensor scale.core has a value that is not positive"),
    "infinite factor": (put(8, np.float16("inf").tobytes()), "tensor factors.left has a value that is not finite"),
    "labels": (put(148, bytes([250, 6])), "label row 0 sums to 256/255"),
    "newlines and length": (altered(lambda h: h.update({"a\n" * 5000: h["std"]})), r"unknown tensor a\na\n"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_in_one_bounded_line(case: str, tmp_path: Path) -> None:
    content, wanted = HOSTILE[case]
    path = tmp_path / "set.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        SyntheticSet.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and wanted in message
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    for path, wanted in ((tmp_path, "is not a file"), (tmp_path / "none", "No such file"), ("a\0b", "null byte")):
        with pytest.raises(FormatError, match=wanted):
            SyntheticSet.load(path)


@pytest.mark.parametrize("whole", [WHOLE, WHOLE_BASIS], ids=["low_rank", "shared_basis"])
def test_damage_raises_format_error_or_loads(whole: bytes, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "set.safetensors"
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for position in generator.integers(0, len(content), generator.integers(1, 4)):
            content[position] ^= 1 << generator.integers(8)
        if generator.random() < 0.3:
            content = content[: generator.integers(len(content))]
        path.write_bytes(content)
        try:
            SyntheticSet.load(path).images(slice(None))
        except FormatError as error:
            assert str(error).isprintable() and len(str(error)) <= LONGEST_MESSAGE
            refused += 1
    assert refused > 200
