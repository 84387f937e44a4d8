"""The recipe of a finished set for another student than the one that chose it: a wide one, one of another kind."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgedd.distillation.compute import Compute, within_memory
from edgedd.distillation.recipe_search import (
    FINALISTS,
    GAIN,
    RATES,
    Search,
    Validation,
    beside,
    sharpened,
    with_augmentations,
)
from edgedd.distillation.training import Trainer
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.students import student as student_named
from edgedd.synthetic_set import SyntheticSet

DECAYS = (4.0, 0.25)  # times the recipe's own weight decay
TEMPERATURE = 0.7  # of the labels; below 1 is sharper
HIGHEST_RATE = 2.0
CHECKS = 2
OnStep = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True)
class Tuned:
    """What `tune` found.

    Attributes:
        synthetic: the set with the recipe, and the labels, that suit the student best.
        before, after: validation accuracy (fraction) by the set's own recipe and by the one found, where time allows of
            CHECKS trainings each that chose nothing.
        trainings: how many students were trained to find it.
    """

    synthetic: SyntheticSet
    before: float
    after: float
    trainings: int


@within_memory()
def tune(
    synthetic: SyntheticSet,
    data: "LabelledImages | str | os.PathLike[str]",
    student: str,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> Tuned:
    """Search the training recipe anew for one student: learning rate, weight decay, label temperature, augmentation.

    Each is a full training on the set and a look at validation images, the tenth that distilling holds out; the test
    images are never read. Images and the number of steps stay as they are. A recipe takes the place of the set's own
    only where it is better by half a point, and, in trainings after the search, better still. After `minutes` (None: no
    limit) what is left is not tried; the set's own recipe is always trained with. `on_step(stage, done, all, loss)`
    counts trainings. The seed is that of the set, or 0.

    Raises:
        SettingError, DataError, ExportError: one line each.
    """
    if minutes is not None and not minutes > 0:
        raise SettingError(f"minutes={minutes}, wanted more than 0, or none for no limit")
    begun, loaded = time.monotonic(), data if isinstance(data, LabelledImages) else load_data(data)
    loaded.refuse_unlike(synthetic.parameterization.shape, len(synthetic.classes))
    network = student_named(student, loaded.shape, loaded.num_classes)
    said = synthetic.provenance.get("seed")
    seed = said if isinstance(said, int) and said >= 0 else 0
    work = 6.0 * 128 * network.multiply_adds * synthetic.recipe.steps * _trials(synthetic)
    trainer = Trainer(network, Compute.for_work(device, work))
    search = Search(_validation(synthetic, loaded, seed), trainer, [seed, 11], _trials(synthetic))
    search.length, search.deadline = synthetic.recipe.steps, None if minutes is None else begun + 60 * minutes
    search.on_trial = (lambda done, total: on_step("recipe", done, max(done, total), None)) if on_step else None
    first = search.score(synthetic)
    found, before, after = _checked(search, synthetic, first, *_searched(search, synthetic, first))
    return Tuned(replace(found, provenance={**found.provenance, "student": student}), before, after, search.done)


def _validation(synthetic: SyntheticSet, data: LabelledImages, seed: int) -> Validation:
    """What distilling held out; where that is few, training images too, unless the set may hold them as they are."""
    training, held_out = data.split(seed=seed)
    validation = Validation.drawn(held_out, seed)
    if not synthetic.provenance.get("iterations"):
        return validation
    return validation.filled(training.train_images, training.train_labels, np.empty(0, np.int64), seed)


def _searched(search: Search, synthetic: SyntheticSet, score: float) -> tuple[SyntheticSet, float]:
    """The rate as far as it gains in either direction, then what goes with it, one after the other."""
    best, score = _at_its_rate(search, synthetic, score)
    decays = [_with(best, weight_decay=best.recipe.weight_decay * by) for by in DECAYS]
    best, score = search.best([best, *decays], [score], GAIN)
    sharper = sharpened(best, TEMPERATURE)
    if not np.array_equal(sharper.tensors["labels"], best.tensors["labels"]):
        best, score = search.best([best, sharper], [score], GAIN)
    others = beside(best.recipe.augmentation, *best.parameterization.shape[1:])
    return search.best([best, *with_augmentations(best, others)], [score], GAIN)


def _at_its_rate(search: Search, synthetic: SyntheticSet, score: float) -> tuple[SyntheticSet, float]:
    best, own = synthetic, synthetic.recipe.student_lr
    for by in sorted(RATES, reverse=True):
        while (rate := float(f"{best.recipe.student_lr * by:.3g}")) <= HIGHEST_RATE:
            other, score = search.best([best, _with(best, student_lr=rate)], [score], GAIN)
            if other is best:
                break
            best = other
        if best.recipe.student_lr != own:
            break
    return best, score


def _checked(
    search: Search, own: SyntheticSet, before: float, found: SyntheticSet, after: float
) -> tuple[SyntheticSet, float, float]:
    """The set that is better in trainings that chose nothing, with the accuracies of both."""
    if found is own:
        return own, after, after
    if search.affords(2 * CHECKS * search.length):
        before, after = (float(np.mean([search.score(each) for _ in range(CHECKS)])) for each in (own, found))
    return (found, before, after) if after > before else (own, before, before)


def _with(synthetic: SyntheticSet, **changes: float) -> SyntheticSet:
    return replace(synthetic, recipe=replace(synthetic.recipe, **changes))  # type: ignore[arg-type]


def _trials(synthetic: SyntheticSet) -> int:
    """Trainings of a search that finds one better rate."""
    choices = len(beside(synthetic.recipe.augmentation, *synthetic.parameterization.shape[1:]))
    return 1 + 2 * (1 + FINALISTS) + len(DECAYS) + 1 + choices + 3 * FINALISTS + 2 * CHECKS
