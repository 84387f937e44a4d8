"""What every parameterization asks of the images it stores: their shape and the bits of a number."""

from typing import Any

import numpy as np

from edgedd.errors import SettingError
from edgedd.storage.quantize import BITS

MAX_SIDE = 96
MIN_SIDE = 8
Shape = tuple[int, int, int]


def check_stored(shape: Shape, bits: int) -> None:
    """Raises SettingError for a shape (C, H, W) or a number of bits that no set may have."""
    if len(shape) != 3 or not all(whole(side) for side in shape):
        raise SettingError(f"image shape {shape!r}, wanted three whole numbers: channels, height, width")
    if shape[0] not in (1, 3) or not all(MIN_SIDE <= side <= MAX_SIDE for side in shape[1:]):
        raise SettingError(
            f"image shape {by(shape)}, wanted 1 or 3 channels and sides of {MIN_SIDE}..{MAX_SIDE} pixels"
        )
    if not whole(bits) or bits not in BITS:
        raise SettingError(f"bits={bits!r}, wanted one of {', '.join(map(str, BITS))}")


def images_of(shape: Shape, images: np.ndarray) -> np.ndarray:
    """Images (n, C, H, W) as float32. Raises SettingError for images of another shape."""
    if images.ndim != 4 or images.shape[1:] != shape:
        raise SettingError(f"images of shape {images.shape}, wanted (n, {', '.join(map(str, shape))})")
    return np.asarray(images, np.float32)


def whole(value: Any) -> bool:
    """Whether a value, perhaps from a file, is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def by(shape: tuple[int, ...]) -> str:
    """(3, 32, 32) -> 3x32x32."""
    return "x".join(map(str, shape))
