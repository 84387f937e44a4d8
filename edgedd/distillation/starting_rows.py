"""Which real images trajectory matching starts from."""

from typing import Protocol

import numpy as np
import torch

from edgedd.distillation.networks import Parameters
from edgedd.distillation.real_images import RealImages

CANDIDATES = 4  # images looked at for each that is wanted


class Predictor(Protocol):
    """Passes of a trained network."""

    def logits(self, parameters: Parameters, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (b, C, H, W) -> logits (b, K)."""
        ...


class Labeller(Protocol):
    """A trained network: the run's teacher."""

    @property
    def trainer(self) -> Predictor:
        """Its passes."""
        ...

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Its parameters."""
        ...


def right_ones(real: RealImages, ipc: int, teacher: Labeller, generator: np.random.Generator) -> np.ndarray:
    """`ipc` random rows a class, class-major, that the teacher classifies right; others where it has too few."""
    chosen = []
    for label in range(real.num_classes):
        rows = real.sample_class(label, min(CANDIDATES * ipc, max(ipc, len(real.classwise[label]))), generator)
        predicted = teacher.trainer.logits(teacher.parameters, real.normalised(rows)).argmax(1).cpu().numpy()
        chosen.append(rows[np.argsort(predicted != label, kind="stable")][:ipc])
    return np.concatenate(chosen)


def sorted_alike(real: RealImages, rows: np.ndarray) -> np.ndarray:
    """Class-major rows in an order in which, within a class, neighbours are alike: along its principal direction.

    Subspaces hold neighbouring rows: S = K gives each class its own, and S = m K divides it into m groups of like
    images.
    """
    ordered = []
    for of_class in np.split(rows, real.num_classes):
        pixels = real.normalised(of_class).flatten(1).double()
        pixels = pixels - pixels.mean(0)
        _, vectors = torch.linalg.eigh(pixels @ pixels.T)
        ordered.append(of_class[np.argsort(vectors[:, -1].cpu().numpy(), kind="stable")])
    return np.concatenate(ordered)
