"""A bundle on a device: train, adapt, predict, and every way it can be refused."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from device_bundle import RECIPE, blobs

from edgedd.device import Student
from edgedd.errors import DataError, EdgeddError, FormatError, SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet


def batch(student: Student, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, labels = blobs(2, seed)
    return student.normalise(images), np.eye(3, dtype=np.float32)[labels]


def test_fitting_learns_the_classes(folder: Path) -> None:
    student, epochs = Student.load(folder, threads=1), list[tuple[int, float]]()
    result = student.fit(on_epoch=lambda epoch, loss: epochs.append((epoch, loss)))
    assert result.steps == len(result.losses) == 30 and result.losses.dtype == np.float32 and result.seconds > 0
    assert result.losses[-5:].mean() < 0.6 * result.losses[0] and result.final_loss == result.losses[-1]
    assert [epoch for epoch, _ in epochs] == list(range(1, 31))  # 9 of 15 rows fill one batch an epoch
    np.testing.assert_allclose([loss for _, loss in epochs], result.losses, rtol=1e-6)
    assert student.evaluate(*blobs(20, seed=2)) > 0.75


def test_one_seed_and_one_thread_give_the_same_bits(folder: Path) -> None:
    runs = []
    for seed in (3, 3, 4):
        student = Student.load(folder, threads=1)
        runs.append((student.fit(seed=seed, steps=8).losses.tobytes(), student.parameters["head.weight"].tobytes()))
    assert runs[0] == runs[1] != runs[2]


def test_memory_can_be_handed_back_with_the_same_result(folder: Path) -> None:
    ordinary, low = (Student.load(folder, threads=1, low_memory=low, micro_batch=4) for low in (False, True))
    np.testing.assert_array_equal(ordinary.fit(steps=3).losses, low.fit(steps=3).losses)
    assert Student.load(folder, low_memory=True).micro_batch(9) == 1


def test_threads_and_micro_batches_change_rounding_alone(folder: Path) -> None:
    """Five images on two threads are three and two; seven threads find only five."""
    wanted = Student.load(folder, threads=1, micro_batch=9).fit(steps=5).losses
    for threads, micro_batch in ((2, 2), (3, None), (7, 1)):
        losses = Student.load(folder, threads=threads, micro_batch=micro_batch).fit(steps=5).losses
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def test_training_can_be_watched_and_stopped(folder: Path) -> None:
    student, seen = Student.load(folder, threads=1), list[tuple[int, int]]()

    def on_step(step: int, steps: int, loss: float) -> bool:
        seen.append((step, steps))
        return step < 4

    assert student.fit(on_step=on_step).steps == 4
    assert seen == [(step, 30) for step in (1, 2, 3, 4)]
    assert student.fit(on_epoch=lambda epoch, loss: epoch < 2).steps == 2


def test_fitting_again_starts_afresh_unless_asked_to_go_on(folder: Path) -> None:
    student = Student.load(folder, threads=1)
    first = student.fit(seed=1, steps=5).losses
    assert student.fit(seed=1, steps=5, fresh=False).losses[0] < first[0]
    np.testing.assert_array_equal(student.fit(seed=1, steps=5).losses, first)


def test_weights_come_back_from_their_file(folder: Path, tmp_path: Path) -> None:
    student, other = (Student.load(folder, seed=seed) for seed in (0, 1))
    images, labels = batch(student)
    student.step(images, labels, 0.1)
    student.save(tmp_path / "weights.safetensors")
    assert (student.predict(images) != other.predict(images)).any()
    other.load_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(student.predict(images), other.predict(images))
    assert {n: a.shape for n, a in other.parameters.items()} == {n: a.shape for n, a in student.parameters.items()}


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: p.pop("head.bias"), "lacks the parameter head.bias"),
        (lambda p: p.update(extra=np.zeros(1, np.float32)), "unknown parameter extra"),
        (lambda p: p.update({"head.bias": np.zeros(4, np.float32)}), r"head.bias is float32 \(4,\), wanted"),
        (lambda p: p.update({"head.bias": np.float32([0, np.nan, 0])}), "head.bias has a value that is not finite"),
        (lambda p: p.update({"head.bias": np.zeros(3)}), "head.bias is float64"),
        (lambda p: p.update(extra=np.zeros(2**20, np.float32)), "another student"),
    ],
)
def test_weights_of_another_student_are_refused(folder: Path, tmp_path: Path, damage: object, message: str) -> None:
    student = Student.load(folder)
    parameters, path = student.parameters, tmp_path / "weights.safetensors"
    before = student.parameters
    damage(parameters)  # type: ignore[operator]
    safetensors.numpy.save_file(parameters, path)
    with pytest.raises(FormatError, match=message):
        student.load_weights(path)
    assert all((student.parameters[name] == array).all() for name, array in before.items())


def test_weights_that_are_no_safetensors_are_refused(folder: Path, tmp_path: Path) -> None:
    student = Student.load(folder)
    with pytest.raises(FormatError, match="cannot read"):
        student.load_weights(tmp_path / "absent")
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(FormatError, match="no valid safetensors"):
        student.load_weights(tmp_path / "short")


def test_pixels_are_normalised_and_floats_taken_as_they_are(folder: Path) -> None:
    student = Student.load(folder)
    images, _ = blobs(30, seed=3)
    floats = ((images[:, None] / 255.0 - 0.5) / 0.25).astype(np.float32)
    logits = student.predict(floats)
    assert logits.shape == (90, 3) and logits.dtype == np.float32
    for layout in (images, images[:, None], images[..., None]):
        np.testing.assert_allclose(student.predict(layout), logits, atol=1e-5)
    assert student.predict(images[:0]).shape == (0, 3)


def test_rehearsal_mixes_rows_with_images(folder: Path) -> None:
    """The loss of a mixed batch is the mean of the losses of its parts, weighted by how many they are."""
    student = Student.load(folder, threads=1)
    images, labels = batch(student)
    rows = np.array([0, 7, 14])
    mixed = student.step(images, labels, 0.0, rows=rows)
    outside = student.step(images, labels, 0.0)
    stored = student.step(images[:0], labels[:0], 0.0, rows=rows)
    assert mixed == pytest.approx((6 * outside + 3 * stored) / 9, rel=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x.astype(np.float64), y), "images are float64"),
        (lambda x, y: (x[:, :, :7], y), r"wanted normalised float32 \(m, 1, 8, 8\)"),
        (lambda x, y: (x, y[:2]), r"soft labels have the shape \(2, 3\)"),
        (lambda x, y: (x, 2 * y), "does not sum to 1"),
    ],
)
def test_wrong_batches_are_refused(folder: Path, change: object, message: str) -> None:
    student = Student.load(folder)
    with pytest.raises(DataError, match=message):
        student.step(*change(*batch(student)), 0.1)  # type: ignore[operator]


def test_wrong_images_labels_and_rows_are_refused(folder: Path) -> None:
    student = Student.load(folder)
    images, labels = blobs(1, seed=0)
    for wrong in (images.astype(np.int32), images[:, :5], images.astype(np.float32)):
        with pytest.raises(DataError, match="wanted uint8 or normalised float32"):
            student.predict(wrong)
    for wrong in (labels[:2], labels - 1, labels.astype(float)):
        with pytest.raises(DataError, match="labels"):
            student.evaluate(images, wrong)
    with pytest.raises(DataError, match="outside the set"):
        student.step(*batch(student), 0.1, rows=np.array([15]))
    with pytest.raises(SettingError, match="threads=0"):
        Student.load(folder, threads=0)


def test_a_loss_that_is_not_finite_keeps_the_last_good_parameters(folder: Path) -> None:
    student = Student.load(folder, threads=1)
    images, labels = batch(student)
    student.step(images, labels, 0.01)
    good = student.parameters
    student.step(images, labels, 1e30)
    with pytest.raises(EdgeddError, match="loss at step 2 is nan"):
        student.step(images, labels, 1e30)
    assert all((student.parameters[name] == array).all() for name, array in good.items())
    assert np.isfinite(student.step(images, labels, 0.01))


def test_a_training_run_that_diverges_names_the_step(synthetic: SyntheticSet, tmp_path: Path) -> None:
    wild = replace(synthetic, recipe=replace(RECIPE, student_lr=100.0, momentum=0.99, weight_decay=1.0, steps=400))
    export(wild, tmp_path / "wild", student="convnet2-w8")
    student = Student.load(tmp_path / "wild")
    with pytest.raises(EdgeddError, match=r"step \d+ .*wanted a finite number; the last good parameters are kept"):
        student.fit()
    assert all(np.isfinite(array).all() for array in student.parameters.values())


@pytest.mark.parametrize("mode", ["head", "bias"])
def test_partial_modes_leave_the_rest_as_it_was(synthetic: SyntheticSet, tmp_path: Path, mode: str) -> None:
    export(synthetic, tmp_path / "part", student="convnet2-w8", mode=mode)
    student = Student.load(tmp_path / "part")
    before = student.parameters
    student.fit(fresh=False, steps=3)
    changed = {name for name, array in student.parameters.items() if (array != before[name]).any()}
    assert changed == {
        n for n in before if (n.startswith("head.") if mode == "head" else "weight" not in n or "norm" in n)
    }


STARVED = """
import re, resource, sys
import numpy as np
from edgedd import Student
from edgedd.errors import BudgetError
student = Student.load(sys.argv[1], threads=1, micro_batch=4096)
images, labels = np.zeros((4096, 1, 8, 8), np.float32), np.full((4096, 3), 1 / 3, np.float32)
before = student.parameters
used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000,) * 2)
try:
    student.step(images, labels, 0.1)
except BudgetError as error:
    print(error)
assert all((student.parameters[name] == array).all() for name, array in before.items())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_too_little_memory_is_one_line_and_changes_nothing(folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", STARVED, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stderr == ""
    assert re.fullmatch(r"out of memory in a training step: 1 x 4096 images .* --low-memory\n", ran.stdout)
