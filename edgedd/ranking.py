"""DD-Ranking's label- and augmentation-robust scores (Li et al. 2025, arXiv 2505.13300), with the gaps behind them.

    HLR = acc(all real images, hard labels) - acc(set, hard labels)
    IOR = acc(set, its own recipe) - acc(as many random real images, the same recipe)
    LRS = s(w IOR - (1 - w) HLR),    ARS = s(w gap with augmentation + (1 - w) gap without),    w = 0.5
    s(a) = (e^a - e^-1) / (e - e^-1)

The gaps of ARS are acc(set) - acc(random real images). Accuracies are fractions, so that scores are within [0, 1].
Hard labels are tested without augmentation. Unlike the published code nothing is chosen on the test images: what needs
a learning rate of its own gets it on the validation split, and accuracies are of the last step.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.labelled_images import LabelledImages
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet, quantize_labels

if TYPE_CHECKING:
    from edgedd.baselines.search import BaselineSearch

WEIGHT = 0.5
LEARNING_RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
FULL = Recipe(student_lr=0.05, batch_size=128)
FULL_EPOCHS = 10  # over all real images
OnStep = Callable[[str, int, int, float | None], None]
KINDS = ("set_own", "set_plain", "set_hard", "random_own", "random_plain")


def squashed(alpha: float) -> float:
    """(e^a - e^-1) / (e - e^-1): -1 -> 0, 1 -> 1."""
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def scores(accuracies: dict[str, float], weight: float = WEIGHT) -> dict[str, float]:
    """Gaps and scores from mean accuracies: full_hard, and those of KINDS.

    Returns hard_label_recovery, improvement_over_random, label_robust_score, gap_augmented, gap_plain,
    augmentation_robust_score.
    """
    a = accuracies
    recovery = a["full_hard"] - a["set_hard"]
    improvement = a["set_own"] - a["random_own"]
    plain = a["set_plain"] - a["random_plain"]
    return {
        "hard_label_recovery": recovery,
        "improvement_over_random": improvement,
        "label_robust_score": squashed(weight * improvement - (1 - weight) * recovery),
        "gap_augmented": improvement,
        "gap_plain": plain,
        "augmentation_robust_score": squashed(weight * improvement + (1 - weight) * plain),
    }


def rank(
    synthetic: SyntheticSet,
    data: LabelledImages,
    students: Sequence[str],
    search: "BaselineSearch",
    *,
    seeds: int = 3,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """For each student `scores`, and `accuracies`: those of every training by kind. Own recipes are the set's.

    Random images are drawn anew for each seed, as many a class as the set has; their labels are the teacher's where
    the set's are soft. A set whose recipe has no augmentation has the same gap with it and without.
    """
    from edgedd.evaluation import evaluate

    def made(kind: str, number: int) -> SyntheticSet:
        base = synthetic if kind.startswith("set") else search.random_set(synthetic, number)
        return replace(_as(kind, base), recipe=recipes[kind])

    recipes = {kind: _tuned(kind, synthetic, search) for kind in KINDS}
    found = []
    for count, name in enumerate(students):
        accuracies: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(seed, seed + seeds):
            for kind in KINDS:
                accuracies[kind] += evaluate(made(kind, number), data, [name], seeds=1, seed=number)[0]["accuracies"]
            if on_step:
                on_step("ranking", count * seeds + number - seed + 1, len(students) * seeds, None)
        accuracies["full_hard"] = list(_full(synthetic, data, name, range(seed, seed + seeds)))
        means = {kind: float(np.mean(values)) for kind, values in accuracies.items()}
        rates = {kind: recipe.student_lr for kind, recipe in recipes.items()}
        about = {"weight": WEIGHT, "full_epochs": FULL_EPOCHS, "learning_rates": rates}
        found.append({"student": name, **scores(means), "accuracies": accuracies, **about})
    return found


def _as(kind: str, synthetic: SyntheticSet) -> SyntheticSet:
    """With one-hot labels where the kind says so."""
    if not kind.endswith("hard"):
        return synthetic
    labels = np.repeat(np.eye(len(synthetic.classes)), synthetic.ipc, axis=0)
    return replace(synthetic, tensors={**synthetic.tensors, "labels": quantize_labels(labels)})


def _tuned(kind: str, synthetic: SyntheticSet, search: "BaselineSearch") -> Recipe:
    """The set's recipe, without augmentation where the kind is plain or hard; with its own labels at its own rate."""
    recipe = synthetic.recipe
    if not kind.endswith("own"):
        recipe = replace(recipe, augmentation=Augmentation())
    if kind in ("set_own", "set_plain"):
        return recipe
    base = _as(kind, synthetic if kind.startswith("set") else search.random_set(synthetic, 0))
    rates = dict.fromkeys((recipe.student_lr, *LEARNING_RATES))
    return search.best_of([replace(base, recipe=replace(recipe, student_lr=rate)) for rate in rates]).recipe


def _full(synthetic: SyntheticSet, data: LabelledImages, name: str, seeds: range) -> Iterator[float]:
    """Test accuracy of the student after FULL_EPOCHS of the whole training part, hard labels, no augmentation."""
    from edgedd.device import Student
    from edgedd.exporting import export

    labels = np.eye(data.num_classes, dtype=np.float32)[data.train_labels]
    count = len(labels)
    of_epoch = max(1, count // FULL.batch_size)
    recipe = replace(FULL, steps=FULL_EPOCHS * of_epoch)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export(replace(synthetic, recipe=recipe), bundle, student=name)
        for seed in seeds:
            student, generator = Student.load(bundle, seed=seed), np.random.default_rng(seed)
            for step in range(recipe.steps):
                if step % of_epoch == 0:
                    order = generator.permutation(count)
                rows = order[step % of_epoch * FULL.batch_size :][: FULL.batch_size]
                student.step(student.normalise(data.train_images[rows]), labels[rows], recipe.learning_rate(step))
            yield student.evaluate(data.test_images, data.test_labels)
