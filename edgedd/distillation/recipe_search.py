"""Choose the set's training recipe on the validation split: the recipe is worth as much as the method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet, quantize_labels

OnTrial = Callable[[int, int], None]
TRIAL_STEPS = 250
FINALISTS = 2
SHARPER = ((1.0, 5e-3), (0.7, 5e-4), (0.7, 5e-3), (0.5, 5e-3))  # label temperature, weight decay


@dataclass(frozen=True)
class Validation:
    """Held-out real images (v, C, H, W) uint8 and labels (v,) that choose settings; never the test split."""

    images: np.ndarray
    labels: np.ndarray


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


def light_augmentations(height: int, width: int) -> tuple[Augmentation, ...]:
    """Mirror and shift, each or both or none: does a mirrored image keep its class?"""
    shift = max(1, min(height, width) // 16)
    return (Augmentation(), Augmentation(shift=shift), Augmentation(flip=0.5), Augmentation(flip=0.5, shift=shift))


@dataclass
class Search:
    """Compares sets by the accuracy of a short training on the validation split; one generator a trial.

    Attributes:
        trials: how many there will be in all, for progress.
    """

    validation: Validation
    trainer: Trainer
    seed: Sequence[int]
    trials: int
    on_trial: OnTrial | None = None
    done: int = 0

    def score(self, synthetic: SyntheticSet) -> float:
        """Accuracy of a student trained for TRIAL_STEPS by the set's recipe."""
        short = replace(synthetic.recipe, steps=TRIAL_STEPS)
        generator = np.random.default_rng([*self.seed, self.done])
        accuracy = validate(synthetic, short, self.validation, self.trainer, generator)
        self.done += 1
        if self.on_trial:
            self.on_trial(self.done, self.trials)
        return accuracy

    def best(self, candidates: Sequence[SyntheticSet], scores: Sequence[float] = ()) -> tuple[SyntheticSet, float]:
        """The candidate that does best, and its score; the first `scores` are known already.

        The last two standing are trained again, since one student's accuracy is within about a point.
        """
        known = np.array([*scores, *(self.score(candidate) for candidate in candidates[len(scores) :])])
        finalists = np.argsort(known)[::-1][:FINALISTS]
        for place in finalists:
            known[place] = 0.5 * (known[place] + self.score(candidates[place]))
        winner = int(finalists[np.argmax(known[finalists])])
        return candidates[winner], float(known[winner])


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
    on_trial: OnTrial | None = None,
) -> SyntheticSet:
    """The set with the augmentation, then the label temperature and weight decay, that suit it best.

    Recipes that the method has `learned` contend first with the set's own, at the augmentation that suits most data.
    """
    height, width = synthetic.parameterization.shape[1:]
    search = Search(validation, trainer, seed, recipe_trials(height, width, len(learned)), on_trial)
    if learned:
        shifted = light_augmentations(height, width)[1]
        recipes = [replace(recipe, augmentation=shifted) for recipe in (synthetic.recipe, *learned)]
        synthetic = search.best([replace(synthetic, recipe=recipe) for recipe in recipes])[0]
    candidates = with_augmentations(synthetic, augmentations(height, width))
    winner, score = search.best(candidates)
    variants = [
        replace(sharpened(winner, temperature), recipe=replace(winner.recipe, weight_decay=weight_decay))
        for temperature, weight_decay in SHARPER
    ]
    return search.best([winner, *variants], [score])[0]


def recipe_trials(height: int, width: int, learned: int = 0) -> int:
    """How many short trainings `choose_recipe` takes, with as many `learned` recipes."""
    first = 1 + learned + FINALISTS if learned else 0
    return first + len(augmentations(height, width)) + len(SHARPER) + 2 * FINALISTS


def with_augmentations(synthetic: SyntheticSet, choices: Sequence[Augmentation]) -> list[SyntheticSet]:
    """The set once with each augmentation in its recipe."""
    return [replace(synthetic, recipe=replace(synthetic.recipe, augmentation=choice)) for choice in choices]


def sharpened(synthetic: SyntheticSet, temperature: float) -> SyntheticSet:
    """The set with its soft labels at a temperature: p^(1/T), rows normalised; below 1 is sharper."""
    labels = (synthetic.tensors["labels"] / 255.0) ** (1 / temperature)
    return replace(synthetic, tensors={**synthetic.tensors, "labels": quantize_labels(labels)})


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
