"""Choose the set's training recipe on the validation split: the recipe is worth as much as the method."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

OnTrial = Callable[[int, int], None]
TRIAL_STEPS = 250


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


def search(
    synthetic: SyntheticSet,
    validation: Validation,
    trainer: Trainer,
    *,
    seed: int,
    on_trial: OnTrial | None = None,
) -> Recipe:
    """The set's recipe with the augmentation whose student does best after TRIAL_STEPS.

    The last two standing are trained again with another seed, since one student's accuracy is within about a point.
    """
    short = replace(synthetic.recipe, steps=TRIAL_STEPS)
    candidates = [replace(short, augmentation=a) for a in augmentations(*synthetic.parameterization.shape[1:])]
    scores = [0.0] * len(candidates)
    trials = len(candidates) + 2
    for trial, recipe in enumerate(candidates):
        scores[trial] = validate(synthetic, recipe, validation, trainer, np.random.default_rng([seed, trial]))
        if on_trial:
            on_trial(trial + 1, trials)
    finalists = np.argsort(scores)[::-1][:2]
    for number, place in enumerate(finalists):
        again = np.random.default_rng([seed, trials + int(place)])
        scores[place] = 0.5 * (scores[place] + validate(synthetic, candidates[place], validation, trainer, again))
        if on_trial:
            on_trial(len(candidates) + number + 1, trials)
    best = int(max(finalists, key=lambda place: scores[place]))
    chosen = candidates[best]
    return replace(chosen, steps=synthetic.recipe.steps)


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
