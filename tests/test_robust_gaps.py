"""DD-Ranking's gaps and scores: numbers by hand, and which set is trained how for each of them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_data import tiny_images
from tiny_sets import random_set

from edgedd import evaluation, ranking
from edgedd.augmentation import Augmentation
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
