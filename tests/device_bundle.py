"""Three patterns under noise, for the tests of bundles and of the device; conftest makes a set and a bundle of them."""

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.recipe import Recipe

SHAPE, CLASSES = (1, 8, 8), ("circle", "cross", "bar")
RECIPE = Recipe(student_lr=0.05, steps=30, batch_size=9, augmentation=Augmentation(flip=0.5, shift=1, cutout=0.2))


def blobs(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (3 per_class, 8, 8) of three fixed patterns under noise, and their labels, class-major."""
    patterns = np.random.default_rng(0).integers(0, 256, (3, 8, 8))
    labels = np.repeat(np.arange(3), per_class)
    noise = np.random.default_rng(seed).normal(0, 30, (len(labels), 8, 8))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels
