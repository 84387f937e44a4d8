"""Choose the set's training recipe on the validation split: the recipe is worth as much as the method."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet, quantize_labels

OnTrial = Callable[[int, int], None]
TRIAL_STEPS = 250
VALIDATION_IMAGES = 5000
ENOUGH_IMAGES = 1000  # recipes chosen on 70 images of digits were 1.0 point worse than on 550 to 700, seven sets
FINALISTS = 2
LOOKS = 5  # trainings of a finalist at most; random digits without augmentation lost 3 points to two unlucky ones
LEAST_TRIALS = 2 + FINALISTS  # of two candidates: without time for so many there is no search
RATES = (0.4, 2.5)  # times the recipe's own
LONGER = 2.5
LONGEST = 1500  # steps: more take a device too long
GAIN = 0.005  # what leaving the usual must bring: one training is within about as much, and devices pay for more steps
SHARPER = ((1.0, 5e-3), (0.7, 5e-4), (0.7, 5e-3), (0.5, 5e-3))  # label temperature, weight decay


@dataclass(frozen=True)
class Validation:
    """Held-out real images (v, C, H, W) uint8 and labels (v,) that choose settings; never the test split."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def drawn(cls, held_out: tuple[np.ndarray, np.ndarray], seed: int) -> "Validation":
        """At most VALIDATION_IMAGES of the images and labels that a split held out."""
        images, labels = held_out
        some = np.random.default_rng([seed, 3]).permutation(len(labels))[:VALIDATION_IMAGES]
        return cls(images[some], labels[some])

    def filled(self, images: np.ndarray, labels: np.ndarray, kept: np.ndarray, seed: int) -> "Validation":
        """With training images up to ENOUGH_IMAGES, where fewer are held out; none of the rows that a set has `kept`.

        For what is chosen between recipes alone: a set that was distilled from an image knows something of it, with
        whatever recipe a student learns it.
        """
        others = np.setdiff1d(np.arange(len(labels)), kept)
        more = np.random.default_rng([seed, 10]).permutation(others)[: max(0, ENOUGH_IMAGES - len(self.labels))]
        return Validation(np.concatenate([self.images, images[more]]), np.concatenate([self.labels, labels[more]]))


def augmentations(height: int, width: int) -> tuple[Augmentation, ...]:
    """The candidates, from none to strong; shifts grow with the images."""
    side = min(height, width)
    shift = max(1, side // 16)
    light = Augmentation(flip=0.5, shift=shift)
    return (
        Augmentation(),
        Augmentation(shift=shift),
        light,
        replace(light, cutout=0.25),
        replace(light, shift=shift + 1, scale=0.2, rotate=15),
        replace(light, shift=shift + 1, scale=0.2, rotate=15, cutout=0.25, colour=0.5),
    )


def beside(own: Augmentation, height: int, width: int) -> list[Augmentation]:
    """The candidates where networks saw `own`, the likeliest first: time may end before the last is tried.

    A weaker augmentation is seldom better, and whether mirrors suit the data is known.
    """
    known = (replace(choice, flip=own.flip) for choice in reversed(augmentations(height, width)))
    return [choice for choice in dict.fromkeys(known) if choice != own]


def light_augmentations(height: int, width: int) -> tuple[Augmentation, ...]:
    """Shift, which suits most data, then none, mirror, and both: does a mirrored image keep its class?"""
    none, shifted, both, *_ = augmentations(height, width)
    return (shifted, none, replace(none, flip=both.flip), both)


@dataclass
class Search:
    """Compares sets by the accuracy of a short training on the validation split; one generator a trial.

    Attributes:
        trials: how many there will be in all, for progress; close finalists add to it.
        deadline: time.monotonic() by which the search ends; None: it tries everything.
        length: steps of a training, by default TRIAL_STEPS.
    """

    validation: Validation
    trainer: Trainer
    seed: Sequence[int]
    trials: int
    on_trial: OnTrial | None = None
    done: int = 0
    deadline: float | None = None
    length: int = field(default_factory=lambda: TRIAL_STEPS)

    def score(self, synthetic: SyntheticSet, steps: int | None = None) -> float:
        """Accuracy of a student trained by the set's recipe, but for `steps`, by default those of the search."""
        recipe = replace(synthetic.recipe, steps=steps or self.length)
        generator = np.random.default_rng([*self.seed, self.done])
        accuracy = validate(synthetic, recipe, self.validation, self.trainer, generator)
        self.done += 1
        if self.on_trial:
            self.on_trial(self.done, self.trials)
        return accuracy

    def affords(self, steps: int) -> bool:
        """Whether trainings of so many steps in all end before the deadline, as fast as the latest one."""
        return self.deadline is None or time.monotonic() + steps * self.trainer.seconds_a_step < self.deadline

    def best(
        self, candidates: Sequence[SyntheticSet], scores: Sequence[float] = (), gain: float = 0.0
    ) -> tuple[SyntheticSet, float]:
        """The candidate that does best, and its score; the first `scores` are known already.

        Another than the first must beat it by `gain`. The last two standing are trained again, since one student's
        accuracy is within about a point; without a deadline until that is settled, LOOKS times at most. Where time
        runs out, later candidates are not tried, and then nothing is trained again.
        """
        scored = list(scores)
        for candidate in candidates[len(scored) :]:
            if scored and not self.affords((1 + FINALISTS) * self.length):
                break
            scored.append(self.score(candidate))
        looks = {int(place): [scored[place]] for place in np.argsort(scored)[::-1][:FINALISTS]}
        for often in range(1, LOOKS if self.deadline is None else 2):
            if not self.affords(FINALISTS * self.length) or (often > 1 and _settled(list(looks.values()))):
                break
            self.trials += len(looks) if often > 1 else 0
            for place, seen in looks.items():
                seen.append(self.score(candidates[place]))
        known = {0: scored[0]} | {place: float(np.mean(seen)) for place, seen in looks.items()}
        winner = max(looks, key=lambda place: known[place])
        winner = 0 if gain and known[winner] <= known[0] + gain else winner
        return candidates[winner], known[winner]


def _settled(looks: Sequence[Sequence[float]]) -> bool:
    """Whether two candidates' means, of as many trainings each, are two standard errors apart, or known well enough."""
    error = math.sqrt(sum(np.var(seen, ddof=1) for seen in looks) / len(looks[0]))
    return bool(error < GAIN or np.ptp(np.mean(looks, axis=1)) > 2 * error)


def choose_augmentation(
    synthetic: SyntheticSet,
    validation: Validation,
    trainer: Trainer,
    *,
    seed: Sequence[int],
    on_trial: OnTrial | None = None,
) -> Augmentation:
    """Mirror and shift where they help students of this set: what the networks that distil will see."""
    candidates = with_augmentations(synthetic, light_augmentations(*synthetic.parameterization.shape[1:]))
    search = Search(validation, trainer, seed, len(candidates) + FINALISTS, on_trial)
    return search.best(candidates)[0].recipe.augmentation


def choose_recipe(
    synthetic: SyntheticSet,
    validation: Validation,
    trainer: Trainer,
    *,
    seed: Sequence[int],
    learned: Sequence[Recipe] = (),
    wide: bool = False,
    seen: bool = False,
    deadline: float | None = None,
    on_trial: OnTrial | None = None,
) -> SyntheticSet:
    """The set with the augmentation, then the label temperature and weight decay, that suit it best.

    What of it does not end before the `deadline` is left out, all of it where there is no time for a choice. A `wide`
    search trains for the recipe's own steps (on Fashion-MNIST shifts win at 1,500 steps alone,
    benchmarks/results/auto_choices_fashion-mnist.json), has a faster recipe contend, and goes on to learning rates and
    more steps. Recipes that the method has `learned` contend first with the set's own, at the augmentation that suits
    most data. Where the networks that distilled have `seen` the set's own augmentation, another one must be better by
    GAIN.
    """
    height, width = synthetic.parameterization.shape[1:]
    search = Search(validation, trainer, seed, recipe_trials(height, width, len(learned), wide), on_trial)
    search.deadline, search.length = deadline, synthetic.recipe.steps if wide else search.length
    if not search.affords(LEAST_TRIALS * search.length):
        return synthetic
    recipes = list(dict.fromkeys([synthetic.recipe, *learned, *([faster(synthetic.recipe)] if wide else [])]))
    if len(recipes) > 1 and search.affords((len(recipes) + FINALISTS) * search.length):
        shifted = light_augmentations(height, width)[0]
        contenders = [replace(recipe, augmentation=shifted) for recipe in recipes]
        synthetic = search.best([replace(synthetic, recipe=recipe) for recipe in contenders])[0]
    own = synthetic.recipe.augmentation
    known = beside(own, height, width) if seen else augmentations(height, width)
    candidates = with_augmentations(synthetic, list(dict.fromkeys([own, *known])))
    winner, score = search.best(candidates, gain=GAIN if seen else 0.0)
    variants = [
        replace(sharpened(winner, temperature), recipe=replace(winner.recipe, weight_decay=weight_decay))
        for temperature, weight_decay in SHARPER
    ]
    winner, score = search.best([winner, *variants], [score])
    return _widely(search, winner, score) if wide else winner


def faster(recipe: Recipe) -> Recipe:
    """The recipe at a rate and decay that were 2.8 points above the usual ones at 30 kB on CIFAR-10.

    A student of 128 channels bears that rate only where it rises to it (auto_choices.json, `warm_up`).
    """
    return replace(recipe, student_lr=0.1, weight_decay=2e-3, schedule="warm-cosine")


def _widely(search: Search, winner: SyntheticSet, score: float) -> SyntheticSet:
    """The learning rate, then the number of steps: full trainings, since short ones say nothing about it."""
    own = winner.recipe
    if search.affords((len(RATES) + FINALISTS) * search.length):
        rates = [replace(winner, recipe=replace(own, student_lr=round(own.student_lr * by, 4))) for by in RATES]
        winner = search.best([winner, *rates], [score])[0]
    steps = min(LONGEST, math.ceil(LONGER * own.steps))
    if steps > own.steps and search.affords(2 * (own.steps + steps)):
        usual, longer = (np.mean([search.score(winner, length) for _ in range(2)]) for length in (own.steps, steps))
        if longer > usual + GAIN:
            winner = replace(winner, recipe=replace(winner.recipe, steps=steps))
    return winner


def recipe_trials(height: int, width: int, learned: int = 0, wide: bool = False) -> int:
    """How many trainings `choose_recipe` takes with as many `learned` recipes, unless finalists are close."""
    first = 1 + learned + wide + FINALISTS if learned or wide else 0
    last = len(RATES) + FINALISTS + 4 if wide else 0
    return first + len(augmentations(height, width)) + len(SHARPER) + 2 * FINALISTS + last


def with_augmentations(synthetic: SyntheticSet, choices: Sequence[Augmentation]) -> list[SyntheticSet]:
    """The set once with each augmentation in its recipe."""
    return [replace(synthetic, recipe=replace(synthetic.recipe, augmentation=choice)) for choice in choices]


def sharpened(synthetic: SyntheticSet, temperature: float) -> SyntheticSet:
    """The set with its soft labels at a temperature: p^(1/T), rows normalised; below 1 is sharper."""
    labels = (synthetic.tensors["labels"] / 255.0) ** (1 / temperature)
    labels = quantize_labels(labels, synthetic.label_levels)
    return replace(synthetic, tensors={**synthetic.tensors, "labels": labels})


def validate(
    synthetic: SyntheticSet, recipe: Recipe, validation: Validation, trainer: Trainer, generator: np.random.Generator
) -> float:
    """Accuracy on the validation split of one fresh student trained on the set as stored."""
    device = trainer.compute.device
    images = torch.from_numpy(synthetic.images(slice(None))).to(device)
    labels = torch.from_numpy(synthetic.soft_labels(slice(None))).to(device)
    parameters = trainer.fit(Shuffled(images, labels, generator), recipe, generator)
    mean, std = synthetic.tensors["mean"], synthetic.tensors["std"]
    return trainer.accuracy(parameters, validation.images, validation.labels, mean, std)
