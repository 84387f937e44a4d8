"""`edgedd try`: processes of their own, time shared out, ranks; rows decoded without tensorly."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from device_bundle import blobs
from test_rooms import HEAVY, run_apart
from tiny_sets import random_set

from edgedd.device import Student, trial, trying
from edgedd.device.decoding import decoded
from edgedd.device.trial import Trial
from edgedd.errors import DataError, SettingError
from edgedd.exporting import export
from edgedd.parameterization import DCT, Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.synthetic_set import SyntheticSet

FORMS = [
    LowRank((3, 8, 9), 3, 2, 4),
    Formation((3, 9, 8), 2, 4),
    SharedBasis((3, 8, 10), 3, 2, 2, half=True),
    SharedBasis((1, 8, 8), 2, 1, 8),
    Pixels((1, 8, 8), 8),
    DCT((3, 8, 10), 5),
]


@pytest.fixture(scope="module")
def pair(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair") / "bundle"
    export(synthetic, path, student="convnet1-w4,mlp")
    return path


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_are_decoded_as_tensorly_decodes_them(form: Parameterization) -> None:
    synthetic = random_set(form, 3, 4, seed=0)
    rows = np.array([11, 0, 5, 6, 6])
    np.testing.assert_allclose(decoded(synthetic, rows), synthetic.images(rows), rtol=1e-5, atol=1e-5)


def test_training_on_some_rows_never_sees_the_others(pair: Path) -> None:
    student = Student.load(pair, threads=1)
    rows = np.arange(0, 15, 2)
    seen: list[np.ndarray] = []
    step = student._trainer.step
    student._trainer.step = lambda batch, *rest: seen.append(batch.rows) or step(batch, *rest)  # type: ignore[method-assign]
    student.fit(steps=5, rows=rows)
    assert set(np.concatenate(seen)) == set(rows)
    with pytest.raises(DataError, match="no rows to train on"):
        student.fit(rows=rows[:0])


def test_a_trial_trains_as_fit_does_and_tests_on_what_it_left_out(pair: Path, synthetic: SyntheticSet) -> None:
    found = trial.run(Trial(str(pair), "mlp", None, 7, 60.0, 99, 3, 1), lambda step: None)
    apart = trial.left_out(synthetic, 3)
    student = Student.load(pair, student="mlp", threads=1)
    result = student.fit(3, steps=7, rows=np.flatnonzero(~apart))
    truth = np.array([0, 1, 2])
    assert list(np.flatnonzero(apart) // synthetic.ipc) == [0, 1, 2]
    assert (found["steps"], found["loss"], found["test_images"]) == (7, result.final_loss, 3)
    assert found["accuracy"] == student.evaluate(synthetic.images(np.flatnonzero(apart)), truth)


def probe(student: str, step: float, image: float = 0.0) -> dict[str, object]:
    row = {"student": student, "seconds_per_step": step, "seconds_per_image": image, "startup_seconds": 2.0}
    return row | {"data_seconds": 0.0, "all_images": 1000}


def test_time_is_shared_out_so_that_all_take_the_same_steps() -> None:
    """By hand: 100 s, less 2 x 2 s of starting and 750 images of 0.02 s, 0.9 of it in steps of 0.375 s for both."""
    probes = [probe("a", 0.125, 0.015), {"student": "c", "error": "too large"}, probe("b", 0.25, 0.005)]
    shares = trying._shares(probes, 600, 100.0, 2)
    images = int(trying.TEST_SHARE * 100 / 0.02)
    assert shares.test_images == images == 750
    assert shares.steps == int(0.9 * (100 - 4 - 750 * 0.02) / 0.375) == 194
    assert list(shares.seconds) == ["a", "b"] and shares.seconds["b"] == pytest.approx(48.5)
    assert shares.until("b", 60.0) == pytest.approx(60 - 2 - 3.75)
    assert shares.until("a", 100.0) == pytest.approx(100 - 2 - 11.25 - (48.5 + 2 + 3.75))
    assert trying._shares(probes, 600, 1e6, 2).steps == 600
    with pytest.raises(SettingError, match=r"2 minutes are too short for 2 students here, wanted at least 2\.\d\d: "):
        trying._shares(probes, 600, 6.0, 2)


def test_ranks_are_by_accuracy_then_seconds_then_memory() -> None:
    rows = [
        {"student": "failed", "error": ""},
        {"student": "slow", "accuracy": 0.5, "seconds": 2.0, "peak_bytes": 1},
        {"student": "large", "accuracy": 0.5, "seconds": 1.0, "peak_bytes": 2},
        {"student": "small", "accuracy": 0.5, "seconds": 1.0, "peak_bytes": 1},
        {"student": "best", "accuracy": 0.6, "seconds": 9.0, "peak_bytes": None},
    ]
    ranked = [row["student"] for row in sorted(rows, key=trying._rank)]
    assert ranked == ["best", "small", "large", "slow", "failed"]


def test_a_student_that_cannot_be_trained_is_a_row_and_not_the_end(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes run within this one here, and the second student finds no memory."""

    def run(asked: Trial, told: object) -> dict[str, object]:
        if asked.student == "mlp":
            return {"student": "mlp", "error": "training takes 900 MB more"}
        return trial.run(asked, lambda step: None)

    monkeypatch.setattr(trying, "_run", run)
    found = trying.try_students(pair, 0.2, threads=1)
    assert [row["student"] for row in found["rows"]] == ["convnet1-w4", "mlp"]
    assert found["rows"][1] == {"student": "mlp", "error": "training takes 900 MB more"}
    assert found["rows"][0]["steps"] == found["steps"] == found["recipe_steps"] == 30
    assert found["test_images"] == 3 and found["tested_on"].startswith("20 % of the set's own rows")


def test_the_process_of_a_trial_reports_its_own_peak_and_one_line_of_error(pair: Path) -> None:
    asked = Trial(str(pair), "convnet1-w4", None, 3, 60.0, 99, 0, 1)
    row = trying._run(asked, lambda step: None)
    assert row["student"] == "convnet1-w4" and 30e6 < row["peak_bytes"] < 120e6  # this process has torch and far more
    wrong = Trial(str(pair), "vgg11", None, 3, 60.0, 99, 0, 1)
    assert "no student 'vgg11'" in trying._run(wrong, lambda step: None)["error"]


def test_a_process_that_dies_is_a_row(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying.sys, "executable", "/bin/false")
    row = trying._run(Trial(str(pair), "mlp", None, 3, 60.0, 99, 0, 1), lambda step: None)
    assert row["student"] == "mlp" and row["error"].startswith("its process ended with status 1 (memory?)")


def test_a_device_tries_without_the_servers_packages(pair: Path) -> None:
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
from edgedd.device import trial
print(trial.run(trial.Trial(sys.argv[1], "mlp", None, 3, 60.0, 99, 0, 1), lambda step: None)["test_images"])
"""
    assert run_apart(code, str(pair)).strip() == "3"


@pytest.mark.slow
def test_the_command(pair: Path, command: Command, tmp_path: Path) -> None:
    images, labels = blobs(4, seed=5)
    data = tmp_path / "d.npz"
    np.savez(data, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    begun = time.monotonic()
    found = json.loads(command("try", pair, "--minutes", 0.5, "--data", data, "--json").out)
    assert time.monotonic() - begun < 30
    assert len(found["rows"]) == 2 and found["test_images"] == 12
    assert {row["steps"] for row in found["rows"]} == {30}
    table = command("try", pair, "--minutes", 0.5).out
    assert "peak MB" in table and "20 % of the set's own rows" in table
    assert "--minutes" in command("try", pair, "--minutes", 0.01).err


def test_refusals(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="minutes=0, wanted"):
        trying.try_students(pair, 0)
    alone = random_set(Pixels((1, 8, 8), 8), 3, 1, seed=0)
    export(alone, tmp_path / "b", student="mlp")
    with pytest.raises(SettingError, match="one image a class, none can be left out to test on: give --data"):
        trying.try_students(tmp_path / "b", 1)
    images, labels = blobs(4, seed=5)
    data = {"train_images": images[:, :, :, None], "train_labels": labels % 2, "test_images": images[:, :, :, None]}
    np.savez(tmp_path / "d.npz", **data, test_labels=labels % 2)
    with pytest.raises(SettingError, match="the data has 1x8x8 images of 2 classes, the bundle 1x8x8 of 3"):
        trial.run(Trial(str(pair), "mlp", str(tmp_path / "d.npz"), 3, 60.0, 0, 0, 1), lambda step: None)
