"""DSA: Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (ICML 2021).

One family is drawn a call; the same parameters then transform every image of the call, real and synthetic alike, so
that their gradients or features stay comparable. For training without a counterpart, parameters are drawn per image.
Families and ranges are the paper's and its released code's; they act on normalised images, and zeros fill in.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation import augment

Strategy = Literal["natural", "digits", "none"]
NATURAL = ("colour", "crop", "cutout", "flip", "scale", "rotate")
STRATEGIES: dict[Strategy, tuple[str, ...]] = {
    "natural": NATURAL,
    "digits": tuple(family for family in NATURAL if family != "flip"),
    "none": (),
}
CROP = 0.125
CUTOUT = 0.5
FLIP = 0.5
SCALE = 1.2
ROTATE_DEGREES = 15.0


class Draw(NamedTuple):
    """A family ("" for none) and its numbers.

    uniform: (1, 3) in [0, 1), the same for every image (siamese), or (b, 3), a row for each. They become parameters
    in `apply`, which knows the images' sides.
    """

    family: str
    uniform: np.ndarray


def draw(strategy: Sequence[str], generator: np.random.Generator, count: int = 1) -> Draw:
    """One family of `strategy` with equal chances, and parameters for `count` images (1: the same for all)."""
    family = strategy[int(generator.integers(len(strategy)))] if strategy else ""
    return Draw(family, generator.random((count, 3)))


def apply(images: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Transform images (b, C, H, W), b any number where the draw is siamese; differentiable in the images."""
    match drawn.family:
        case "colour":
            images = _colour(images, drawn.uniform)
        case "crop":
            images = _crop(images, drawn.uniform)
        case "cutout":
            images = images * _kept(images, drawn.uniform)
        case "flip":
            mirrored = torch.from_numpy(drawn.uniform[:, 0] < FLIP).to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        case "scale":
            images = _resampled(images, _scale(drawn.uniform))
        case "rotate":
            images = _resampled(images, _rotation(drawn.uniform, images.shape[2] / images.shape[3]))
    return images


def apply_by_class(images: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Images (K m, C, H, W) in class-major order, each class by its own siamese draw of `draws` (K)."""
    parts = torch.split(images, len(images) // len(draws))
    return torch.cat([apply(part, drawn) for part, drawn in zip(parts, draws, strict=True)])


def _colour(images: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """Brightness, then saturation around the channels' mean, then contrast around the image's mean: all three."""
    numbers = torch.from_numpy(uniform).to(images)[:, :, None, None, None]
    images = images + (numbers[:, 0] - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * numbers[:, 1]) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (numbers[:, 2] + 0.5) + mean


def _crop(images: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """Whole-pixel translation by up to CROP of each side."""
    rows = _moved(images.shape[2], uniform[:, 0])
    columns = _moved(images.shape[3], uniform[:, 1])
    padded = F.pad(images, (1, 1, 1, 1))
    if len(uniform) == 1:
        return padded[:, :, rows[0]][:, :, :, columns[0]]
    which = np.arange(len(uniform))[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(side: int, uniform: np.ndarray) -> np.ndarray:
    """(b, side) positions to read in an image padded by one zero on every side."""
    most = int(side * CROP + 0.5)
    shift = np.floor(uniform * (2 * most + 1)).astype(np.int64) - most
    positions: np.ndarray = np.clip(np.arange(side) + shift[:, None] + 1, 0, side + 1)
    return positions


def _kept(images: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """1 outside a rectangle of CUTOUT of each side, 0 inside: (b, 1, H, W). At the border it is cut, not moved."""
    rows, columns = (_cut(side, uniform[:, axis]) for axis, side in enumerate(images.shape[2:]))
    cut = rows[:, :, None] & columns[:, None, :]
    return torch.from_numpy(~cut[:, None]).to(images)


def _cut(side: int, uniform: np.ndarray) -> np.ndarray:
    """(b, side) whether a position lies in the rectangle."""
    size = int(side * CUTOUT + 0.5)
    first = np.floor(uniform * (side + 1 - size % 2)).astype(np.int64) - size // 2
    low, high = (np.clip(end, 0, side - 1)[:, None] for end in (first, first + size - 1))
    cut: np.ndarray = (low <= np.arange(side)) & (np.arange(side) <= high)
    return cut


def _scale(uniform: np.ndarray) -> np.ndarray:
    """Sampling positions stretched along x and y by factors uniform in [1/SCALE, SCALE]: (b, 2, 3)."""
    matrix = np.zeros((len(uniform), 2, 3), np.float32)
    matrix[:, [0, 1], [0, 1]] = uniform[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    return matrix


def _rotation(uniform: np.ndarray, height_per_width: float) -> np.ndarray:
    """Sampling positions turned by up to ROTATE_DEGREES: (b, 2, 3). The paper's images are square."""
    angle = (uniform[:, 0] - 0.5) * 2 * math.radians(ROTATE_DEGREES)
    matrix = np.zeros((len(uniform), 2, 3), np.float32)
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 0, 1] = -np.sin(angle) * height_per_width
    matrix[:, 1, 0] = np.sin(angle) / height_per_width
    return matrix


def _resampled(images: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """Bilinear, zeros outside."""
    grid = augment.grid(torch.from_numpy(matrix).to(images.device), *images.shape[2:]).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
