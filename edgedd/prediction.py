"""Classify picture files with a bundle's trained student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.bundles.files import WEIGHTS
from edgedd.data_files import DAMAGE, open_image
from edgedd.errors import DataError, SettingError

MAX_PIXELS = 50_000_000


def predict_files(
    bundle: Path,
    paths: Sequence[Path],
    weights: Path | None = None,
    *,
    int8: bool = False,
    student: str | None = None,
) -> list[dict[str, Any]]:
    """One row a picture: file, class, probability, and the probability of every class.

    Pictures are resized to the set's image size; a `.npy` file holds uint8 (H, W), (H, W, C) or a batch of them.
    Without `weights` the bundle's own are taken, as they are for `int8`. `student` is one of the bundle's.

    Raises:
        SettingError: neither weights nor a bundle that brings some, or int8 with other weights.
        DataError: a file that is missing or no picture.
        MissingExtra: Pillow is needed to read it and is not installed.
    """
    from edgedd.device import Student

    opened = Student.load(bundle, student=student)
    if weights is not None:
        opened.load_weights(weights)
    elif not opened.bundle.holds(WEIGHTS):
        raise SettingError(f"{bundle} brings no weights: give those that `edgedd train` wrote with --weights")
    rows = []
    for path in paths:
        images = read_images(path, tuple(opened.bundle.image_shape))
        scores = opened.predict(images, int8=int8).astype(np.float64)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        for number, share in enumerate(shares):
            name = str(path) if len(shares) == 1 else f"{path}[{number}]"
            best = int(share.argmax())
            classes = dict(zip(opened.classes, (float(p) for p in share), strict=True))
            rows.append(
                {
                    "file": name,
                    "class": opened.classes[best],
                    "probability": float(share[best]),
                    "classes": classes,
                }
            )
    return rows


def read_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Images of a picture or .npy file, uint8 (b, C, H, W). Raises DataError, MissingExtra."""
    if not path.is_file():
        raise DataError(f"{path} is not a file, wanted a picture or .npy")
    return _read_array(path, shape) if path.suffix == ".npy" else _read_picture(path, shape)


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    try:
        images: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # never more than the file holds
    except DAMAGE as error:
        raise DataError(f"{path} is no .npy array of numbers, wanted uint8 images") from error
    forms = {(height, width): (1, height, width, 1), (height, width, channels): (1, height, width, channels)}
    if images.shape in forms:
        images = images.reshape(forms[images.shape])
    if images.shape[1:] == (height, width) and channels == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels) or not len(images):
        raise DataError(
            f"{path} is {images.dtype} {images.shape}, wanted uint8 ({height}, {width}, {channels}) or (b, ...)"
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _read_picture(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    given = open_image(path)
    if given[0] * given[1] > MAX_PIXELS:
        raise DataError(f"{path} has {given[0]}x{given[1]} pixels, wanted at most {MAX_PIXELS}: make it smaller")
    from PIL import Image

    picture = Image.fromarray(open_image(path, "L" if channels == 1 else "RGB")[3])
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
