"""Learning from new images on the device: spare outputs, the buffer, runs that stop and go on, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import Command
from device_bundle import SHAPE, blobs

import edgedd
from edgedd import Rehearsal, Student
from edgedd.device.reservoir import LABEL_BYTES, Reservoir
from edgedd.distillation.memories import MEMORIES, Keeping, Task
from edgedd.errors import DataError, EdgeddError, FormatError, SettingError
from edgedd.exporting import export
from edgedd.labelled_images import LabelledImages
from edgedd.parameterization import LowRank
from edgedd.synthetic_set import SyntheticSet

EACH = 64 + LABEL_BYTES


@pytest.fixture(scope="module")
def spare(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spare") / "bundle"
    export(synthetic, path, student="convnet2-w8", spare_classes=2)
    return path


def stripes(count: int, seed: int) -> np.ndarray:
    """Pictures (count, 8, 8) of a class that the bundle does not know."""
    noise = np.random.default_rng(seed).normal(0, 30, (count, 8, 8))
    return np.clip(np.where(np.arange(8) % 2, 230, 20) + noise, 0, 255).astype(np.uint8)


def trained(spare: Path) -> Student:
    student = Student.load(spare, threads=1)
    student.fit(seed=0)
    return student


def test_spare_outputs_change_nothing_until_they_are_used(folder: Path, spare: Path) -> None:
    students = [Student.load(path, threads=1, micro_batch=9) for path in (folder, spare)]
    losses = [student.fit(seed=1).losses for student in students]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    images = stripes(20, seed=0)
    logits = [student.predict(images) for student in students]
    assert logits[1].shape == (20, 3) and students[1].spare_classes == 2 and students[0].spare_classes == 0
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-4)


def test_a_new_class_is_learned_and_its_name_goes_with_the_weights(spare: Path, tmp_path: Path) -> None:
    student = trained(spare)
    rehearsal = Rehearsal(student, buffer_bytes=60 * EACH)
    rehearsal.add(stripes(30, seed=1), ["stripes"] * 30)
    assert student.classes == ("circle", "cross", "bar") and rehearsal.classes == (*student.classes, "stripes")
    result = rehearsal.fit(steps=40)
    assert result.finished and len(result.losses) == result.steps <= 40
    assert result.new_accuracy.before == 0 and result.new_accuracy.after > 0.9 and result.new_accuracy.count == 6
    assert result.old_accuracy.after > result.old_accuracy.before - 0.2 and result.old_accuracy.count == 3
    assert result.image_accuracy.after == result.new_accuracy.after
    student.save(tmp_path / "weights.safetensors")
    other = Student.load(spare)
    other.load_weights(tmp_path / "weights.safetensors")
    assert other.classes == ("circle", "cross", "bar", "stripes") and other.spare_classes == 1
    with pytest.raises(SettingError, match="learned on a device"):
        export(
            student.synthetic,
            tmp_path / "b",
            student="convnet2-w8",
            spare_classes=2,
            weights=tmp_path / "weights.safetensors",
        )
    pictures = stripes(50, seed=2)
    assert other.evaluate(pictures, np.full(50, 3)) > 0.9
    np.testing.assert_array_equal(other.predict(pictures), student.predict(pictures))
    other.fit(steps=1)
    assert other.classes == ("circle", "cross", "bar")  # trained from the set alone


def test_a_run_that_was_cut_and_taken_up_elsewhere_ends_with_the_same_bits(spare: Path, tmp_path: Path) -> None:
    start = trained(spare)
    start.save(tmp_path / "start")

    def begun() -> Rehearsal:
        student = Student.load(spare, threads=1)
        student.load_weights(tmp_path / "start")
        rehearsal = Rehearsal(student, buffer_bytes=20 * EACH, seed=3)
        rehearsal.add(stripes(30, seed=1), ["stripes"] * 30)
        return rehearsal

    unbroken, cut = begun(), begun()
    wanted = unbroken.fit(steps=20)
    stopped = cut.fit(steps=20, on_step=lambda step, steps, loss: step < 7)
    assert (stopped.steps, stopped.finished, stopped.new_accuracy.after) == (7, False, None)
    cut.save(tmp_path / "state")
    again = Rehearsal.load(tmp_path / "state", Student.load(spare, threads=1, seed=9))
    with pytest.raises(SettingError, match="in the midst"):
        again.add(stripes(1, seed=0), ["stripes"])
    result = again.resume()
    np.testing.assert_array_equal(result.losses, wanted.losses)
    assert (result.best_step, result.old_accuracy) == (wanted.best_step, wanted.old_accuracy)
    for name, array in unbroken.student.parameters.items():
        np.testing.assert_array_equal(again.student.parameters[name], array)
    for rehearsal in (unbroken, again):  # and from there on
        rehearsal.add(blobs(4, seed=5)[0], blobs(4, seed=5)[1])
    np.testing.assert_array_equal(unbroken.kept.images, again.kept.images)
    np.testing.assert_array_equal(unbroken.fit(steps=3).losses, again.fit(steps=3).losses)


def test_a_run_that_fails_or_a_student_trained_afresh_leaves_the_images(spare: Path) -> None:
    rehearsal = Rehearsal(trained(spare))
    rehearsal.add(stripes(9, seed=1), ["stripes"] * 9)
    taken = 0

    def fails_at_third(student: Student, images: np.ndarray, *rest: Any, **options: Any) -> float:
        nonlocal taken
        taken += 1
        return step(student, images * np.float32(np.nan if taken == 3 else 1), *rest, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(EdgeddError, match="wanted a finite number"):
        step = Student.step
        patch.setattr(Student, "step", fails_at_third)
        rehearsal.fit(steps=9)
    assert rehearsal.fit(steps=4).finished and len(rehearsal.classes) == 4
    rehearsal.student.fit(steps=1)
    with pytest.raises(SettingError, match="forgotten classes"):
        rehearsal.fit(steps=4)


def test_the_buffer_keeps_every_class_within_its_bytes() -> None:
    """Chrysakis and Moens 2020: a rare class that comes late is kept whole, the others share what is left."""
    generator, reservoir = np.random.default_rng(0), Reservoir(30, SHAPE)
    labels = [0] * 200 + [1] * 60 + [2] * 4
    for number, label in enumerate(labels):
        reservoir.add(np.full(SHAPE, number % 256, np.uint8), label, generator)
    assert np.bincount(reservoir.labels).tolist() == [13, 13, 4] and reservoir.nbytes == 30 * EACH
    of_first = reservoir.images[reservoir.labels == 0, 0, 0, 0]
    assert of_first.min() < 50 and of_first.max() > 150  # not only the earliest or the latest
    copy = Reservoir(30, SHAPE)
    copy.restore("kept", reservoir.tensors("kept"), 3)
    for each in (reservoir, copy):
        each.add(np.zeros(SHAPE, np.uint8), 1, np.random.default_rng(1))
    np.testing.assert_array_equal(reservoir.images, copy.images)


@pytest.mark.parametrize(
    ("error", "message", "act"),
    [
        (SettingError, "3 new class.*2 spare output.*--spare-classes", lambda r: r.add(stripes(3, 0), ["a", "b", "c"])),
        (SettingError, "control characters", lambda r: r.add(stripes(1, 0), ["a\n"])),
        (DataError, "wanted uint8 .b, 1, 8, 8.", lambda r: r.add(np.zeros((2, 9, 9), np.uint8), ["a", "b"])),
        (DataError, "wanted uint8", lambda r: r.add(np.zeros((2, 1, 8, 8), np.float32), ["a", "b"])),
        (DataError, "for each of 2 images", lambda r: r.add(stripes(2, 0), ["a"])),
        (DataError, "labels reach from 0 to 3", lambda r: r.add(stripes(2, 0), [0, 3])),
        (DataError, "no new images to learn from", lambda r: r.fit()),
        (SettingError, "no run was stopped", lambda r: r.resume()),
        (
            SettingError,
            "ratio=1.5, wanted a number above 0 and up to 1",
            lambda r: r.add(*blobs(1, 0)) or r.fit(ratio=1.5),
        ),
        (SettingError, "steps=0", lambda r: r.add(*blobs(1, 0)) or r.fit(steps=0)),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    spare: Path, error: type[EdgeddError], message: str, act: Callable[[Rehearsal], Any]
) -> None:
    rehearsal = Rehearsal(Student.load(spare))
    with pytest.raises(error, match=message):
        act(rehearsal)
    assert rehearsal.classes == ("circle", "cross", "bar")


def test_a_buffer_or_an_export_that_cannot_be_is_refused(
    synthetic: SyntheticSet, spare: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=f"buffer_bytes=100, wanted a whole number in .{5 * EACH}"):
        Rehearsal(Student.load(spare), buffer_bytes=100)
    with pytest.raises(SettingError, match="0 spare output"):
        Rehearsal(Student.load(folder)).add(stripes(1, 0), ["stripes"])
    for wrong, message in (({"model": tmp_path}, "own model"), ({"quantize": True}, "int8"), ({}, "whole number in")):
        with pytest.raises(SettingError, match=message):
            export(synthetic, tmp_path / "b", spare_classes=2 if wrong else 5000, **wrong)


def test_a_damaged_rehearsal_is_refused_and_the_student_stays(spare: Path, tmp_path: Path) -> None:
    rehearsal = Rehearsal(trained(spare), buffer_bytes=20 * EACH)
    rehearsal.add(stripes(9, seed=1), ["stripes"] * 9)
    rehearsal.fit(steps=4, on_step=lambda step, steps, loss: step < 2)
    rehearsal.save(tmp_path / "state")
    content, student = (tmp_path / "state").read_bytes(), Student.load(spare)
    before, generator = student.parameters, np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content[: len(content) if generator.random() < 0.7 else generator.integers(len(content))])
        for place in generator.integers(0, min(len(damaged), 4000) or 1, 3):
            damaged[place : place + 1] = bytes([generator.integers(256)])
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            Rehearsal.load(tmp_path / "damaged", student)
        except FormatError as error:
            assert "\n" not in str(error)
            assert all((student.parameters[name] == array).all() for name, array in before.items())
        else:
            student = Student.load(spare)
            before = student.parameters
    with pytest.raises(FormatError, match="no rehearsal"):
        safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "other")
        Rehearsal.load(tmp_path / "other", student)


def test_the_command_learns_new_classes_and_predict_knows_their_names(
    spare: Path, command: Command, tmp_path: Path
) -> None:
    for name, pictures in (("stripes", stripes(12, seed=1)), ("bar", blobs(4, seed=3)[0][8:])):
        (tmp_path / "new" / name).mkdir(parents=True)
        np.save(tmp_path / "new" / name / "pictures.npy", pictures)
    made, state = tmp_path / "weights", tmp_path / "state"
    common = ("train", spare, "--new-data", tmp_path / "new", "-o", made, "--threads", 1)
    shown = command(*common, "--rehearsal", state)
    assert shown.status == 0, shown.err
    assert "new classes: stripes" in shown.out and "16 new images in 1,056 bytes" in shown.out
    np.save(tmp_path / "picture.npy", stripes(1, seed=7)[0])
    predicted = command("predict", spare, tmp_path / "picture.npy", "--weights", made)
    assert "stripes" in predicted.out
    np.savez(tmp_path / "more.npz", train_images=stripes(3, 8), train_labels=np.zeros(3, int), classes=["stripes"],
             test_images=stripes(1, 8), test_labels=np.zeros(1, int))  # fmt: skip
    again = command("train", spare, "--new-data", tmp_path / "more.npz", "-o", made, "--rehearsal", state, "--json")
    assert '"images": 19' in again.out and '"new_classes": []' in again.out
    np.savez(tmp_path / "test.npz", train_images=np.tile(stripes(1, 8), (2, 1, 1)), train_labels=np.arange(2),
             classes=["stripes", "bar"], test_images=stripes(8, 9), test_labels=np.zeros(8, int))  # fmt: skip
    tested = command("evaluate", spare, "--data", tmp_path / "test.npz", "--weights", made, "--json")
    assert json.loads(tested.out)[0]["accuracy"] == 1
    for wrong, message in (
        (("train", spare, "-o", made, "--ratio", 0.5), "--ratio is for --new-data"),
        ((*common[:3], tmp_path / "absent", "-o", made), "does not exist"),
        ((*common, "--rehearsal", state, "--weights", made), "leave --weights"),
    ):
        refused = command(*wrong)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1


def digits_of(kind: str, classes: range) -> tuple[np.ndarray, np.ndarray]:
    digits = edgedd.load_data("digits")
    images, labels = getattr(digits, f"{kind}_images"), getattr(digits, f"{kind}_labels")
    chosen = np.isin(labels, classes)
    return images[chosen], labels[chosen]


@pytest.mark.parametrize("method", ["random", pytest.param("frepo", marks=pytest.mark.slow)])
def test_two_digits_are_learned_on_the_device_and_the_other_eight_are_remembered(method: str, tmp_path: Path) -> None:
    """Without rehearsal the old digits are lost."""
    names, old, new = tuple("01234567"), range(8), range(8, 10)
    eight = LabelledImages(*digits_of("train", old), *digits_of("test", old), classes=names, name="eight")
    recipe = edgedd.Recipe(student_lr=0.05, steps=80, batch_size=64, augmentation=edgedd.Augmentation(shift=1))
    if method == "random":
        task = Task(eight, eight.mean, eight.std, names=names, seed=0)
        synthetic = MEMORIES["random, 4 bits"](task, Keeping(LowRank(SHAPE, 4, 1, 4), 4000, recipe))
    else:
        synthetic = edgedd.distill(eight, method=method, bytes=4000, recipe=recipe, iterations=30, width=16)
    export(synthetic, tmp_path / "bundle", student="convnet2-w16", spare_classes=2)
    student = Student.load(tmp_path / "bundle", threads=1)
    student.fit(seed=0)
    student.save(tmp_path / "weights")
    before = student.evaluate(*digits_of("test", old))
    accuracies = []
    for ratio in (None, 1.0):
        student.load_weights(tmp_path / "weights")
        rehearsal = Rehearsal(student, buffer_bytes=20_000)
        images, numbers = digits_of("train", new)
        rehearsal.add(images, [str(number) for number in numbers])
        rehearsal.fit(ratio=ratio)
        accuracies.append([student.evaluate(*digits_of("test", classes)) for classes in (old, new)])
    assert before > 0.85 and accuracies[0][0] > before - 0.08 and accuracies[0][1] > 0.7
    assert accuracies[1][0] < before - 0.4
