"""DD-Ranking's gaps and scores: numbers by hand, and which set is trained how for each of them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from tiny_data import tiny_images
from tiny_sets import random_set

from edgedd import evaluation, ranking
from edgedd.augmentation import Augmentation
from edgedd.distillation import recipe_search
from edgedd.parameterization import Pixels
from edgedd.synthetic_set import SyntheticSet

ACCURACIES = {
    "full_hard": 0.80,
    "set_hard": 0.30,
    "set_own": 0.50,
    "random_own": 0.40,
    "set_plain": 0.45,
    "random_plain": 0.41,
}


def test_scores_by_hand() -> None:
    found = ranking.scores(ACCURACIES)
    assert found["hard_label_recovery"] == pytest.approx(0.50)
    assert found["improvement_over_random"] == found["gap_augmented"] == pytest.approx(0.10)
    assert found["gap_plain"] == pytest.approx(0.04)
    # 0.5 0.10 - 0.5 0.50 = -0.2: (0.8187308 - 0.3678794) / 2.3504024; 0.5 0.10 + 0.5 0.04 = 0.07
    assert found["label_robust_score"] == pytest.approx(0.191819, abs=1e-6)
    assert found["augmentation_robust_score"] == pytest.approx((math.exp(0.07) - 0.3678794) / 2.3504024, abs=1e-6)
    assert ranking.scores(ACCURACIES, weight=1)["label_robust_score"] == pytest.approx(ranking.squashed(0.10))
    assert (ranking.squashed(-1), ranking.squashed(1)) == (0, pytest.approx(1))


def test_a_set_as_good_as_all_images_and_no_better_than_chance_has_the_scores_of_the_ends() -> None:
    ends = dict.fromkeys(ACCURACIES, 0.0)
    best = ends | {"full_hard": 1.0, "set_hard": 1.0, "set_own": 1.0, "set_plain": 1.0}
    assert ranking.scores(best)["augmentation_robust_score"] == pytest.approx(1)
    assert ranking.scores(best)["label_robust_score"] == pytest.approx(ranking.squashed(0.5))
    worst = ends | {"full_hard": 1.0, "random_own": 1.0, "random_plain": 1.0}
    assert ranking.scores(worst)["label_robust_score"] == ranking.scores(worst)["augmentation_robust_score"] == 0


class Chooser:
    """Random images are the same set of another seed; the last learning rate wins."""

    def random_set(self, like: SyntheticSet, number: int) -> SyntheticSet:
        return random_set(like.parameterization, 3, like.ipc, seed=100 + number)

    def best_of(self, candidates: list[SyntheticSet]) -> SyntheticSet:
        return candidates[-1]


def test_which_sets_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_set(Pixels((3, 8, 8)), 3, 2, seed=0)
    augmentation = Augmentation(shift=1)
    given = replace(given, recipe=replace(given.recipe, augmentation=augmentation, student_lr=0.03))
    seen: list[tuple[bool, bool, bool, float, int]] = []

    def evaluate(synthetic: SyntheticSet, *_: Any, seeds: int, seed: int) -> list[dict[str, Any]]:
        mine = np.array_equal(synthetic.tensors["factors.images"], given.tensors["factors.images"])
        hard = bool((synthetic.tensors["labels"].max(1) == 255).all())
        recipe = synthetic.recipe
        seen.append((mine, hard, recipe.augmentation == augmentation, recipe.student_lr, seed))
        kind = f"{'set' if mine else 'random'}_{'hard' if hard else 'own' if seen[-1][2] else 'plain'}"
        return [{"accuracies": [ACCURACIES[kind] + 0.01 * seed]}]

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(ranking, "_full", lambda *_: [0.79, 0.83])
    data = tiny_images(count=12, shape=(3, 8, 8), num_classes=3)
    found = ranking.rank(given, data, ["convnet2-w8"], Chooser(), seeds=2)[0]  # type: ignore[arg-type]
    own = [(True, False, True, 0.03), (True, False, False, 0.03), (True, True, False, 0.1)]
    wanted = [*own, (False, False, True, 0.1), (False, False, False, 0.1)]
    assert seen == [(*one, seed) for seed in (0, 1) for one in wanted]
    assert found["hard_label_recovery"] == pytest.approx(0.81 - 0.305)
    assert found["improvement_over_random"] == pytest.approx(0.10)
    assert found["accuracies"]["set_own"] == [0.50, 0.51]


@pytest.mark.slow
def test_the_command_ranks(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 5)
    monkeypatch.setattr(ranking, "FULL_EPOCHS", 30)
    data = tiny_images(count=90, shape=(3, 8, 8), num_classes=3)
    parts = {"train_images": data.train_images, "test_images": data.test_images}
    arrays = {name: values.transpose(0, 2, 3, 1) for name, values in parts.items()}
    np.savez(tmp_path / "tiny.npz", **arrays, train_labels=data.train_labels, test_labels=data.test_labels)
    given = random_set(Pixels((3, 8, 8)), 3, 2, seed=0)
    given = replace(given, classes=("0", "1", "2"), recipe=replace(given.recipe, steps=20))
    given.save(tmp_path / "set.safetensors")
    options = ("--data", tmp_path / "tiny.npz", "--students", "convnet2-w8", "--seeds", 2, "--ranking")
    ran = command("evaluate", tmp_path / "set.safetensors", *options, "--json")
    assert ran.status == 0, ran.err
    (row,) = json.loads(ran.out)
    ranked = row["ranking"]
    assert set(ranked["accuracies"]) == {*ACCURACIES}
    assert all(len(values) == 2 for values in ranked["accuracies"].values())
    assert np.mean(ranked["accuracies"]["full_hard"]) > np.mean(ranked["accuracies"]["set_own"])
    assert ranked["accuracies"]["set_own"] == row["accuracies"]
    table = command("evaluate", tmp_path / "set.safetensors", *options)
    assert f"{100 * ranked['hard_label_recovery']:+.1f} points" in table.out
