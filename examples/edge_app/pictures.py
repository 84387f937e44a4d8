"""Pictures as a camera pipeline writes them, .pgm and .ppm, or .npy, brought to the size that the student takes."""

import re
from pathlib import Path

import numpy as np

LARGEST_FILE = 2**25
_HEAD = re.compile(rb"P([56])\s+(?:#[^\n]*\n\s*)*(\d{1,5})\s+(\d{1,5})\s+255\s")


class PictureError(ValueError):
    """A file that is no picture, or not a whole one yet."""


def read_picture(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (C, H, W) of `shape` from a file. Raises PictureError, OSError."""
    if path.stat().st_size > LARGEST_FILE:
        raise PictureError(f"{path.name} has more than {LARGEST_FILE} bytes, wanted a smaller picture")
    content = path.read_bytes()
    return fitted(_array(path) if path.suffix == ".npy" else _portable(path.name, content), shape)


def fitted(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """An image, uint8 (h, w) or (h, w, 3), stretched to (C, H, W) by averaging areas; grey is the mean of colours."""
    channels, height, width = shape
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise PictureError(f"the image is {image.dtype} {image.shape}, wanted uint8 (h, w) or (h, w, 3)")
    if image.shape[2] != channels:
        image = image.mean(2, keepdims=True) if channels == 1 else np.repeat(image, channels, axis=2)
    rows, columns = _areas(image.shape[0], height), _areas(image.shape[1], width)
    scaled = np.einsum("yi,ijc,xj->cyx", rows, image, columns, optimize=True)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _areas(old: int, new: int) -> np.ndarray:
    """(new, old): the share that each old pixel has in each new one."""
    step = old / new
    edges = np.arange(new + 1) * step
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(overlap, 0) / step, np.float32)


def _portable(name: str, content: bytes) -> np.ndarray:
    found = _HEAD.match(content)
    if not found:
        raise PictureError(f"{name} is no binary .pgm or .ppm of 8 bits, wanted one, or .npy")
    channels, width, height = 1 if found[1] == b"5" else 3, int(found[2]), int(found[3])
    pixels = content[found.end() :]
    if len(pixels) != width * height * channels:
        raise PictureError(f"{name} has {len(pixels)} bytes of pixels, wanted {width * height * channels}")
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)


def _array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # never more memory than the file has bytes
    except (ValueError, EOFError) as error:
        raise PictureError(f"{path.name} is no .npy array, wanted a uint8 image") from error
    return array
