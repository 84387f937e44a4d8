"""One .edgedd.zip holds what the folder holds; what no bundle is, is refused before it is unpacked."""

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_bundle import SHAPE

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import CARD, MANIFEST, PREDICT, SET
from edgedd.device import Student
from edgedd.errors import LONGEST_MESSAGE, BundleError, SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

Change = Callable[[dict[str, bytes]], object]


@pytest.fixture(scope="module")
def archive(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "b.edgedd.zip"
    export(synthetic, path, student="convnet2-w8", target="raspberry-pi-zero-2w")
    return path


def zipped(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], object] = lambda _: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            out.writestr(entry, content)
    return buffer.getvalue()


def test_an_archive_is_the_folder_in_one_file(synthetic: SyntheticSet, folder: Path, archive: Path) -> None:
    bundle, other = Bundle.load(archive), Bundle.load(folder)
    assert {name: bundle.file(name).read_bytes() for name in bundle.files} == {
        name: other.file(name).read_bytes() for name in other.files
    }
    image = np.arange(64, dtype=np.uint8).reshape(1, *SHAPE)
    students = [Student.load(path, threads=1, seed=3) for path in (archive, folder)]
    assert np.array_equal(students[0].predict(image), students[1].predict(image))
    again = archive.with_name("again.edgedd.zip")
    export(synthetic, again, student="convnet2-w8", target="raspberry-pi-zero-2w")
    assert again.read_bytes() == archive.read_bytes()


def test_what_was_unpacked_goes_with_the_bundle(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = Bundle.load(archive)
    assert list(tmp_path.iterdir()) == [bundle.path]
    del bundle
    assert not list(tmp_path.iterdir())
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(BundleError, match="no zip file, or truncated"):
        Bundle.load(damaged)
    assert list(tmp_path.iterdir()) == [damaged]


def read(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def link(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil", "entry '../evil' is outside the folder"),
        ("a/../../evil", "is outside the folder"),
        ("/etc/passwd", "entry '/etc/passwd' is outside the folder"),
        ("..\\evil", "is outside the folder"),
        ("C:evil", "is outside the folder"),
        ("x" * 300, "is called by 300 characters"),
        ("evil.sh", "entry 'evil.sh' is none of a bundle's files"),
        ("sub/", "is none of a bundle's files"),
        ("manifest.json\0.sh", "is none of a bundle's files"),
        ("\x1b[2J", r"entry '\\x1b[2J' is none of"),
    ],
)
def test_an_entry_that_no_bundle_has_is_refused(archive: Path, tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / "b.edgedd.zip"
    content = zipped({"M" * len(name): b"x", **read(archive)})
    path.write_bytes(content.replace(b"M" * len(name), name.encode()))
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    assert words.replace("\\\\", "\\") in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= LONGEST_MESSAGE
    assert list(tmp_path.iterdir()) == [path]


def hostile(files: dict[str, bytes]) -> dict[str, tuple[bytes, str]]:
    """Archives, and what is said of each."""
    plain = zipped(files)
    huge = files | {CARD: b"a" * 2**16 + b"a"}
    end = plain.rindex(b"PK\x05\x06")
    declared, damaged = bytearray(plain), bytearray(plain)
    damaged[plain.index(b"PK\x03\x04") + 60] ^= 4
    entry = plain.index(b"PK\x01\x02")
    declared[entry + 24 : entry + 28] = (2**27).to_bytes(4, "little")
    twice = zipped({**files, "SET.safetensors": files[SET]}).replace(b"SET.safetensors", b"set.safetensors")
    return {
        "link": (zipped(files, link), "is a link or another special file"),
        "twice": (twice, f"entry '{SET}' is standing twice"),
        "encrypted": (_flagged(plain, 1), "is encrypted"),
        "method": (_flagged(plain, 0, method=14), "compressed in an unknown way"),
        "large": (zipped(huge), "entry 'CARD.md' is of 65537 bytes and may have 65536"),
        "bomb": (zipped({MANIFEST: b" " * 2**18, SET: bytes(2**22)}), "declares 4456448, wanted at most 100 times"),
        "declared": (bytes(declared), f"of {2**27} bytes and may have 65536"),
        "comment": (plain[:-2] + b"\x04\0evil", "no zip file, or truncated"),
        "before": (b"#!/bin/sh\n" + plain, "not a plain zip from first to last byte"),
        "locator": (plain[:end] + b"PK\x06\x07" + bytes(16) + plain[end:], "not a plain zip"),
        "disks": (plain[: end + 4] + b"\1" + plain[end + 5 :], "not a plain zip"),
        "many": (zipped({f"{number}": b"" for number in range(2000)}), "lists 2000 entries"),
        "damaged": (bytes(damaged), "is a damaged zip"),
        "empty": (b"", "no zip file"),
        "nothing": (zipped({}), "manifest.json is missing"),
        "no manifest": (zipped({n: c for n, c in files.items() if n != MANIFEST}), "manifest.json is missing"),
        "no graph": (zipped({n: c for n, c in files.items() if n != PREDICT}), "predict.onnx is missing"),
        "altered": (zipped(files | {PREDICT: files[PREDICT] + b"x"}), "predict.onnx was altered after export"),
    }


def _flagged(content: bytes, flags: int, method: int = 8) -> bytes:
    """Flags and method of every entry, in its own header and in the list."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(magic, start + 1)) >= 0:
            changed[start + offset] = flags
            changed[start + offset + 2] = method
    return bytes(changed)


def test_a_hostile_archive_is_refused_in_one_line(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.edgedd.zip"
    for case, (content, words) in hostile(read(archive)).items():
        path.write_bytes(content)
        with pytest.raises(BundleError) as caught:
            Bundle.load(path)
        assert words in str(caught.value), case
        assert str(path) in str(caught.value) and str(caught.value).isprintable()


def test_an_archive_replaces_a_file_and_not_a_folder(synthetic: SyntheticSet, tmp_path: Path) -> None:
    (tmp_path / "b.edgedd.zip").mkdir()
    with pytest.raises(SettingError, match="is a folder, wanted a file name"):
        export(synthetic, tmp_path / "b.edgedd.zip", student="convnet1-w4")
    with pytest.raises(SettingError, match="No such file or directory"):
        export(synthetic, tmp_path / "absent" / "b.edgedd.zip", student="convnet1-w4")
