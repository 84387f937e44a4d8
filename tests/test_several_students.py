"""A bundle with several students: each is what a bundle of its own would be, and strangers' files are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from device_bundle import blobs

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import CARD, MANIFEST, PREDICT, TRAIN_STEP, file_of
from edgedd.bundles.installation import install
from edgedd.bundles.verification import verify
from edgedd.device import Student
from edgedd.errors import BudgetError, BundleError, ExportError, SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

NAMES = ("convnet2-w8", "convnet1-w4", "mlp")
BOARD = "raspberry-pi-zero-2w"


@pytest.fixture(scope="module")
def several(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "bundle"
    export(synthetic, path, student=", ".join(NAMES), target=BOARD)
    return path


@pytest.fixture
def copy(several: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(several, tmp_path / "copy"))


@pytest.mark.parametrize("name", NAMES)
def test_each_student_is_as_in_a_bundle_of_its_own(
    name: str, several: Path, synthetic: SyntheticSet, tmp_path: Path
) -> None:
    alone = export(synthetic, tmp_path / "alone", student=name, target=BOARD)
    one, other = Student.load(several, student=name, threads=1), Student.load(tmp_path / "alone", threads=1)
    assert (one.bundle.student, one.bundle.students) == (name, NAMES)
    assert (one.bundle.threads, one.bundle.micro_batch) == (alone.threads, alone.micro_batch)
    for made in (one, other):
        made.fit(seed=3, steps=4)
    assert list(one.parameters) == list(other.parameters)
    for found, wanted in zip(one.parameters.values(), other.parameters.values(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    images = blobs(2, seed=5)[0]
    np.testing.assert_array_equal(one.predict(images), other.predict(images))


def test_the_first_is_the_default_and_one_alone_is_written_as_before(several: Path, folder: Path) -> None:
    assert Student.load(several, threads=1).bundle.student == NAMES[0]
    alone, together = (json.loads((path / MANIFEST).read_text()) for path in (folder, several))
    assert (alone["version"], together["version"]) == (2, 3)
    assert {key: together[key] for key in alone if key not in ("version", "files")} == {
        key: value for key, value in alone.items() if key not in ("version", "files")
    }
    assert list(together["more_students"]) == list(NAMES[1:]) and "more_students" not in alone
    assert "convnet1-w4, mlp" in (several / CARD).read_text()


def test_an_archive_and_an_installation_bring_them_all(several: Path, synthetic: SyntheticSet, tmp_path: Path) -> None:
    path = tmp_path / "several.edgedd.zip"
    export(synthetic, path, student=",".join(NAMES))
    assert [Student.load(path, student=name, threads=1).bundle.student for name in NAMES] == list(NAMES)
    parts = [check.part for check in verify(path)]
    assert [file_of("mlp", file) in parts for file in (TRAIN_STEP, PREDICT)] == [True, True]
    assert install(path, tmp_path / "device").bundle.students == NAMES


@pytest.mark.parametrize("name", [file_of("mlp", PREDICT), file_of("convnet1-w4", TRAIN_STEP)])
def test_damage_to_any_of_them_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        Student.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Student.load(copy)


MLP = {"threads": 1, "micro_batch": None}


@pytest.mark.parametrize(
    "more, wrong",
    [
        ({"../mlp": MLP, "mlp": MLP, "convnet1-w4": MLP}, "more_students"),
        ({"mlp": {"threads": 1}, "convnet1-w4": MLP}, "more_students"),
        ({"mlp": MLP | {"threads": 0}, "convnet1-w4": MLP}, "more_students"),
        ({f"mlp{k}": MLP for k in range(16)}, "more_students"),
        ([], "more_students"),
        ({"mlp": MLP}, "files"),
        ({"mlp": MLP, "convnet1-w4": MLP, "resnet8": MLP}, "files"),
        ({"mlp": MLP, "convnet1-w4": MLP, "convnet2-w8": MLP}, "files"),
    ],
)
def test_a_manifest_that_names_other_students_is_refused(copy: Path, more: object, wrong: str) -> None:
    values = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(values | {"more_students": more}))
    with pytest.raises(BundleError, match=f"impossible value of {wrong}"):
        Bundle.load(copy)


def test_what_cannot_be_is_refused_in_one_line(
    several: Path, synthetic: SyntheticSet, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        SettingError, match="no student 'resnet8', wanted one of its own: convnet2-w8, convnet1-w4, mlp"
    ):
        Student.load(several, student="resnet8")
    with pytest.raises(SettingError, match="at most 16, each once"):
        export(synthetic, tmp_path / "b", student="mlp,mlp")
    with pytest.raises(SettingError, match="int8 graphs are for one student, got 2"):
        export(synthetic, tmp_path / "b", student="mlp,convnet1-w4", quantize=True)
    with pytest.raises(SettingError, match="unknown student 'vgg'"):
        export(synthetic, tmp_path / "b", student="mlp,vgg")
    with pytest.raises(ExportError, match="halves images 4 times"):
        export(synthetic, tmp_path / "b", student="mlp,convnet4-w8")
    with pytest.raises(BudgetError, match="wanted at most the"):
        export(synthetic, tmp_path / "b", student="mlp,convnet2-w1024", target=BOARD)
    assert not list(tmp_path.iterdir())


def test_the_commands_take_one_of_them(several: Path, command: Command, tmp_path: Path) -> None:
    weights, pictures, data = tmp_path / "w.safetensors", tmp_path / "p.npy", tmp_path / "d.npz"
    images, labels = blobs(2, seed=5)
    np.save(pictures, images)
    np.savez(data, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    trained = command("train", several, "--student", "mlp", "-o", weights, "--json")
    assert json.loads(trained.out)["student"] == "mlp"
    assert command("predict", several, pictures, "--weights", weights).err.startswith("edgedd: ")
    predicted = json.loads(
        command("predict", several, pictures, "--weights", weights, "--student", "mlp", "--json").out
    )
    evaluated = command("evaluate", several, "--data", data, "--weights", weights, "--students", "mlp", "--json")
    right = [row["class"] == ("circle", "cross", "bar")[label] for row, label in zip(predicted, labels, strict=True)]
    assert json.loads(evaluated.out)[0]["accuracy"] == pytest.approx(np.mean(right))
