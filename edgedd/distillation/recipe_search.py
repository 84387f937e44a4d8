"""Choose the set's training recipe on the validation split: the recipe is worth as much as the method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation.training import Shuffled, Trainer
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

OnTrial = Callable[[int, int], None]
TRIAL_STEPS = 250
FINALISTS = 2


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


def search(
    synthetic: SyntheticSet,
    candidates: Sequence[Augmentation],
    validation: Validation,
    trainer: Trainer,
    *,
    seed: Sequence[int],
    on_trial: OnTrial | None = None,
) -> Recipe:
    """The set's recipe with the candidate whose student does best on the validation split after TRIAL_STEPS.

    The last two standing are trained again with another seed, since one student's accuracy is within about a point.
    """
    short = replace(synthetic.recipe, steps=TRIAL_STEPS)
    scores = np.zeros(len(candidates))
    trials = 0

    def score(place: int) -> float:
        nonlocal trials
        recipe = replace(short, augmentation=candidates[place])
        accuracy = validate(synthetic, recipe, validation, trainer, np.random.default_rng([*seed, trials]))
        trials += 1
        if on_trial:
            on_trial(trials, len(candidates) + FINALISTS)
        return accuracy

    scores[:] = [score(place) for place in range(len(candidates))]
    finalists = np.argsort(scores)[::-1][:FINALISTS]
    for place in finalists:
        scores[place] = 0.5 * (scores[place] + score(int(place)))
    best = int(finalists[np.argmax(scores[finalists])])
    return replace(synthetic.recipe, augmentation=candidates[best])


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
