"""Bilinear interpolation as a matrix an axis: centres of pixels at half-integers (`align_corners=False`)."""

import numpy as np


def places(size: int, result: int) -> np.ndarray:
    """Where each of `result` elements lies among `size` elements, in [0, size - 1], float32."""
    centres = (np.arange(result) + 0.5) * size / result - 0.5
    return np.asarray(centres.clip(0, size - 1), np.float32)


def bilinear(size: int, result: int) -> np.ndarray:
    """(result, size) float32: element u weighs max(0, 1 - |place - u|)."""
    distance = np.abs(places(size, result)[:, None] - np.arange(size, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)
