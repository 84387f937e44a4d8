"""A set under way as the file that it will be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedd.distillation.trainable_set import TrainableSet
from edgedd.planning import planner
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet, label_steps

MOST_ITERATIONS = 999_999


@dataclass(frozen=True)
class Filing:
    """What goes into a set's file beside what is distilled.

    Attributes:
        mean, std: (C,) of the training images in [0, 1].
        provenance: its "iterations" are those of `file`.
        packed: whether the file is entropy-coded.
    """

    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    provenance: Mapping[str, Any]
    packed: bool

    def file(self, synthetic: TrainableSet, recipe: Recipe, iterations: int) -> SyntheticSet:
        """The set as it would be stored now; compact forms store labels in few levels."""
        compact = planner.stores_compact(synthetic.parameterization)
        stored = SyntheticSet.from_factors(
            synthetic.parameterization,
            factors=synthetic.numpy_factors(),
            labels=synthetic.numpy_labels(),
            mean=self.mean,
            std=self.std,
            recipe=recipe,
            classes=self.classes,
            provenance={**self.provenance, "iterations": iterations},
            scales=synthetic.numpy_scales(),
            label_levels=label_steps(len(self.classes)) if compact else 255,
        )
        return stored.packed() if self.packed else stored

    def most_bytes(self, synthetic: TrainableSet) -> int:
        """Of the file, whatever recipe and number of iterations it will have."""
        return self.file(synthetic, planner.LONGEST_RECIPE, MOST_ITERATIONS).nbytes
