"""Apply drawn augmentations with torch; the training graph applies the same arrays (edgedd.exporting.augment)."""

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.augmentation import Augmentation, Draw, draw


def augment(images: torch.Tensor, augmentation: Augmentation, generator: np.random.Generator) -> torch.Tensor:
    """Images (b, C, H, W) with parameters drawn per image; differentiable in the images."""
    if augmentation == Augmentation():
        return images
    drawn = draw(augmentation, len(images), images.shape[2], images.shape[3], generator)
    return apply(images, augmentation, drawn)


def apply(images: torch.Tensor, augmentation: Augmentation, drawn: Draw) -> torch.Tensor:
    """Colour, then the affine map, then cutout, each only where `augmentation` has it on."""
    affine, cutout, colour = (torch.from_numpy(values).to(images.device) for values in drawn)
    if augmentation.colour:
        images = _colour(images, *colour[:, :, None, None, None].unbind(1))
    if augmentation.moves:
        images = F.grid_sample(
            images, grid(affine, *images.shape[2:]), mode="bilinear", padding_mode="zeros", align_corners=False
        )
    if augmentation.cutout:
        images = images * _kept(cutout, images.shape[2], images.shape[3])
    return images


def grid(affine: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Affine maps (b, 2, 3) of all pixel centres: (b, H, W, 2), in half the time of `affine_grid`."""
    x, y = _centres(width, affine.device)[:, None], _centres(height, affine.device)[:, None, None]
    across, down, shift = affine[:, None, None].unbind(-1)
    return across * x + (down * y + shift)


def _colour(
    images: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor, contrast: torch.Tensor
) -> torch.Tensor:
    images = images + brightness
    if images.shape[1] > 1:
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * saturation + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * contrast + mean


def _kept(cutout: torch.Tensor, height: int, width: int) -> torch.Tensor:
    x = _centres(width, cutout.device)
    y = _centres(height, cutout.device)
    inside_x = (x[None] - cutout[:, :1]).abs() <= cutout[:, 2:3]
    inside_y = (y[None] - cutout[:, 1:2]).abs() <= cutout[:, 3:4]
    return (~(inside_y[:, None, :, None] & inside_x[:, None, None, :])).float()


def _centres(side: int, device: torch.device) -> torch.Tensor:
    """Pixel centres in [-1, 1]."""
    return (torch.arange(side, device=device) * 2 + 1) / side - 1
