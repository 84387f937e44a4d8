"""A bundle on disk: what it says of itself, and every way it can be refused."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from device_bundle import CLASSES, SHAPE

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import CARD, MANIFEST, PREDICT, SET, TARGET, TRAIN_STEP
from edgedd.device import Student
from edgedd.errors import BundleError, ExportError, SettingError
from edgedd.exporting import export
from edgedd.planning.target import load_target
from edgedd.synthetic_set import SyntheticSet


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_bundle_says_what_it_is(folder: Path, synthetic: SyntheticSet) -> None:
    bundle = Bundle.load(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, SET, TRAIN_STEP, PREDICT, CARD, TARGET])
    assert (bundle.student, bundle.mode) == ("convnet2-w8", "full")
    assert (bundle.target, bundle.threads) == ("raspberry-pi-zero-2w", 4)
    assert (bundle.image_shape, bundle.classes) == (SHAPE, CLASSES)
    assert bundle.profile() == load_target("raspberry-pi-zero-2w")
    assert bundle.nbytes == sum(p.stat().st_size for p in folder.iterdir())
    assert (folder / SET).read_bytes() == synthetic.to_bytes()
    with pytest.raises(BundleError, match=r"has no \.\./etc/passwd"):
        bundle.file("../etc/passwd")


def test_a_bundle_of_version_1_is_read(copy: Path) -> None:
    values = json.loads((copy / MANIFEST).read_text()) | {"version": 1}
    for name in (CARD, TARGET):
        (copy / name).unlink()
        del values["files"][name]
    for key in ("micro_batch", "licence"):
        del values[key]
    (copy / MANIFEST).write_text(json.dumps(values))
    bundle = Student.load(copy, threads=1).bundle
    assert (bundle.threads, bundle.micro_batch, bundle.licence, bundle.profile()) == (4, None, None, None)


@pytest.mark.parametrize("name", [SET, TRAIN_STEP, PREDICT, MANIFEST])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Student.load(copy)


@pytest.mark.parametrize("name", [SET, TRAIN_STEP, PREDICT])
def test_an_altered_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was altered after export \(other contents\)"):
        Student.load(copy)
    (copy / name).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=rf"{name} was altered after export \(\d+ bytes, wanted"):
        Student.load(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 4}, "has version 4, this edgedd reads up to 3: upgrade"),
        ({"version": "1"}, "has version='1', wanted 1 to 3"),
        ({"version": 3}, r"unknown or missing keys \(more_students\)"),
        ({"version": 1}, r"unknown or missing keys \(licence, micro_batch\)"),
        ({"licence": 3}, "impossible value of licence"),
        ({"student": []}, "impossible value of student"),
        ({"micro_batch": 0}, "impossible value of micro_batch"),
        ({"colour": "red"}, r"unknown or missing keys \(colour\)"),
        ({"files": {"../x": {"bytes": 1, "sha256": ""}}}, "impossible value of files"),
        ({"image_shape": [1, 8]}, "impossible value of image_shape"),
        ({"classes": "abc", "target": 3}, "impossible value of classes, target"),
        ({"threads": 0}, "impossible value of threads"),
        ({"classes": ["a", "b", "c"]}, "the manifest and the set differ"),
    ],
)
def test_an_impossible_manifest_is_refused(copy: Path, change: dict[str, object], message: str) -> None:
    values = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(values | change))
    with pytest.raises(BundleError, match=message):
        Student.load(copy)


def test_a_manifest_that_is_not_json_is_refused(copy: Path) -> None:
    (copy / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.load(copy)
    (copy / MANIFEST).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(BundleError, match="more than"):
        Bundle.load(copy)


def test_a_graph_that_does_not_load_is_refused(copy: Path) -> None:
    content = b"not a graph"
    (copy / TRAIN_STEP).write_bytes(content)
    values = json.loads((copy / MANIFEST).read_text())
    values["files"][TRAIN_STEP] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (copy / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"onnxruntime .* cannot load .*train_step.onnx"):
        Student.load(copy)


def test_a_bundle_replaces_a_bundle_and_nothing_else(synthetic: SyntheticSet, copy: Path, tmp_path: Path) -> None:
    assert export(synthetic, copy, student="convnet1-w4").student == Bundle.load(copy).student == "convnet1-w4"
    (copy / "photo.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    for kept in (copy, tmp_path / "file"):
        with pytest.raises(SettingError, match="exists and is not an edgedd bundle"):
            export(synthetic, kept, student="convnet1-w4")
    (tmp_path / "empty").mkdir()
    export(synthetic, tmp_path / "empty", student="convnet1-w4")
    assert (copy / "photo.jpg").read_bytes() == (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "empty", "file"]


def test_impossible_exports_are_refused(synthetic: SyntheticSet, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"halves images 4 times.* choose a lower depth, such as convnet2-w64"):
        export(synthetic, tmp_path / "b", student="convnet4-w8")
    with pytest.raises(SettingError, match="unknown student 'vgg'"):
        export(synthetic, tmp_path / "b", student="vgg")
    with pytest.raises(SettingError, match="cannot write"):
        export(synthetic, tmp_path / "absent" / "b")
    assert not list(tmp_path.iterdir())
