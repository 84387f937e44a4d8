"""Choose a seeded part of a labelled set with every class in proportion."""

import numpy as np


def held_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Mask (N,), bool: about `fraction` of each class, at least one image and never all of a class.

    A class with a single image has none held out. Equal labels, fraction and seed give equal masks.
    """
    generator = np.random.default_rng(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        mask[rows[: min(len(rows) - 1, max(1, round(len(rows) * fraction)))]] = True
    return mask
