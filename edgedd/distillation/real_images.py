"""The real training images on the compute device: uint8 in memory, normalised a batch at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.labelled_images import LabelledImages


@dataclass(frozen=True)
class RealImages:
    """N images of K classes. `images` (N, C, H, W) uint8; `labels` (N,) int64; mean and std of [0, 1] pixels (C,)."""

    images: torch.Tensor
    labels: torch.Tensor
    mean: np.ndarray
    std: np.ndarray
    num_classes: int
    classwise: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, data: LabelledImages, compute: Compute) -> "RealImages":
        """The training part of a data set."""
        classwise = tuple(np.flatnonzero(data.train_labels == c) for c in range(data.num_classes))
        images, labels = compute.tensor(data.train_images), compute.tensor(data.train_labels)
        return cls(images, labels, data.mean, data.std, data.num_classes, classwise)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.images.shape[1], self.images.shape[2], self.images.shape[3])

    def normalised(self, rows: np.ndarray) -> torch.Tensor:
        """Images (b, C, H, W), float32, zero mean and unit deviation a channel."""
        chosen = self.images[torch.from_numpy(rows).to(self.images.device)]
        return normalise(chosen, self.mean, self.std)

    def sample(self, count: int, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` random images (b, C, H, W) and their labels (b,)."""
        rows = generator.integers(0, len(self.labels), count)
        return self.normalised(rows), self.labels[torch.from_numpy(rows).to(self.labels.device)]

    def sampler(self, generator: np.random.Generator) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
        """What a network is trained on: of each number, so many random images (b, C, H, W) and hard labels (b, K)."""

        def sample(count: int) -> tuple[torch.Tensor, torch.Tensor]:
            images, labels = self.sample(count, generator)
            return images, torch.nn.functional.one_hot(labels, self.num_classes).float()

        return sample

    def rows_at_random(self, ipc: int, generator: np.random.Generator) -> np.ndarray:
        """Row numbers (K ipc,) in class-major order."""
        return np.concatenate([self.sample_class(c, ipc, generator) for c in range(self.num_classes)])

    def sample_class(self, label: int, count: int, generator: np.random.Generator) -> np.ndarray:
        """`count` different row numbers of one class, or all of them, with repetition only where it is smaller."""
        rows = self.classwise[label]
        return generator.choice(rows, count, replace=len(rows) < count)


def normalise(images: torch.Tensor, mean: np.ndarray, std: np.ndarray) -> torch.Tensor:
    """uint8 (b, C, H, W) -> (x / 255 - mean) / std, float32."""
    scale = torch.from_numpy(1 / (255 * std)).float().to(images.device)[:, None, None]
    offset = torch.from_numpy(mean / std).float().to(images.device)[:, None, None]
    return images.float() * scale - offset
