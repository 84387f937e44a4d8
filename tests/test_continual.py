"""Classes that come a step at a time: what each step sees, what is kept of it, and what is told at the end."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Command

import edgedd
from edgedd.continual import Continual, evaluate_continual, shown, summary
from edgedd.distillation import memories
from edgedd.distillation.memories import MEMORIES, Keeping, Task
from edgedd.errors import SettingError
from edgedd.parameterization import LowRank
from edgedd.parameterization.dct import DCT

RECIPE = edgedd.Recipe(student_lr=0.05, steps=25, batch_size=32)
KEEPING = Keeping(LowRank((1, 8, 8), 4, 1, 4), 1600, RECIPE, iterations=2, width=8)


def test_each_step_shows_its_own_classes_and_the_seed_draws_which() -> None:
    digits = edgedd.load_data("digits")
    parts = shown(digits, 5, seed=0)
    assert sorted(name for part in parts for name in part.classes) == sorted(digits.classes)
    for part in parts:
        for number, name in enumerate(part.classes):
            images = part.test_images[part.test_labels == number]
            np.testing.assert_array_equal(images, digits.test_images[digits.test_labels == int(name)])
    assert [part.classes for part in shown(digits, 5, seed=1)] != [part.classes for part in parts]
    for steps in (3, 10, 0):
        with pytest.raises(SettingError, match="10 classes in"):
            shown(digits, steps, seed=0)


def test_averages_and_forgetting_by_hand() -> None:
    """Chaudhry et al. 2018, Equation 4: the best accuracy before the last step, less the last; of all but the last."""
    told = summary([[0.9], [0.5, 0.8], [0.6, 0.4, 1.0]], [10, 10, 20])
    assert told["average"] == pytest.approx([0.9, 0.65, 0.75]) and told["final"] == pytest.approx(0.75)
    assert told["mean"] == pytest.approx((0.9 + 0.65 + 0.75) / 3)
    assert told["forgetting"] == pytest.approx((0.3 + 0.4) / 2)


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_memory_is_made_of_its_own_step_within_its_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "GUIDE", edgedd.Recipe(student_lr=0.05, steps=30, batch_size=64))
    parts = shown(edgedd.load_data("digits"), 5, seed=0)
    tasks = [Task(part, parts[0].mean, parts[0].std, names=parts[0].classes, seed=0) for part in parts[:2]]
    sets = [MEMORIES[kind](task, KEEPING) for task in tasks]
    joined = edgedd.join(sets)
    assert joined.classes == parts[0].classes + parts[1].classes
    assert all(KEEPING.bytes - 200 < each.nbytes <= KEEPING.bytes for each in sets)
    images, truth = joined.images(slice(None)), np.arange(joined.count) // joined.ipc
    assert (joined.soft_labels(slice(None)).argmax(1) == truth).mean() > 0.9
    if "distilled" not in kind:  # images of that class of the data, but for rounding
        for row in (0, joined.count - 1):
            real = tasks[truth[row] // 2].real
            own = real.normalised(real.classwise[truth[row] % 2]).numpy()
            assert np.abs(own - images[row]).max(axis=(1, 2, 3)).min() < 0.2


def test_frequencies_of_a_step_fill_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "GUIDE", edgedd.Recipe(student_lr=0.05, steps=10, batch_size=64))
    keeping = Keeping(DCT((1, 8, 8), 6), 900, RECIPE, iterations=3, width=8)
    parts = shown(edgedd.load_data("digits"), 5, seed=0)[:2]
    mean, std = parts[0].mean, parts[0].std
    sets = [MEMORIES["distilled"](Task(p, mean, std, names=p.classes, seed=0), keeping) for p in parts]
    assert all(each.compact and 0.9 * keeping.bytes < each.nbytes <= keeping.bytes for each in sets)
    assert edgedd.join(sets).count == 2 * sets[0].count == 4 * keeping.ipc(keeping.form, parts[0].classes)


def test_a_run_remembers_better_than_chance_and_one_seed_gives_one_row() -> None:
    how = Continual(KEEPING, "convnet2-w8", 5, threads=1)
    kinds = ["random, as distilled"]
    rows = [evaluate_continual(edgedd.load_data("digits"), how, 0, kinds)[0] for _ in range(2)]
    assert rows[0] == rows[1] and [len(row) for row in rows[0]["accuracies"]] == [1, 2, 3, 4, 5]
    assert rows[0]["final"] > 0.4 and rows[0]["average"][0] > 0.8 and rows[0]["bytes"] <= 5 * KEEPING.bytes
    with pytest.raises(SettingError, match="unknown memory 'all'"):
        evaluate_continual(edgedd.load_data("digits"), how, 0, ["all"])


@pytest.mark.slow
def test_the_command_compares_memories(command: Command, tmp_path: Path) -> None:
    synthetic = edgedd.distill("digits", method="random", bytes=9000, labels="hard", recipe=RECIPE)
    synthetic.save(tmp_path / "set.safetensors")
    common = ("evaluate", tmp_path / "set.safetensors", "--data", "digits", "--students", "convnet2-w8", "--seeds", 1)
    rows = json.loads(command(*common, "--continual", 5, "--json").out)
    assert [row["memory"] for row in rows] == list(MEMORIES)
    assert all(row["bytes"] <= synthetic.nbytes and 0.1 < row["final"] <= row["mean"] < 1 for row in rows)
    refused = command(*common, "--continual", 3)
    assert refused.status == 2 and "10 classes in 3 steps" in refused.err
