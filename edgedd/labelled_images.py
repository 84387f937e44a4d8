"""Real data: labelled images with a training and a test part, checked once and read from anywhere.

Letters: N images, C channels, H and W pixels, K classes, b images in a batch. Pixels are uint8, 0..255.
"""

import difflib
import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgedd import data_files, data_sources
from edgedd.errors import DataError, SettingError
from edgedd.parameterization import MAX_SIDE, MIN_SIDE
from edgedd.storage.set_metadata import MAX_CLASSES, class_names
from edgedd.stratified import held_out

CHUNK = 1024
MIN_STD = 1e-3


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A data set. Raises DataError when parts do not fit together.

    Attributes:
        train_images: uint8 (N, C, H, W), C 1 or 3, sides of 8..96 pixels.
        train_labels: int64 (N,), 0..K-1, each class at least once.
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,), 0..K-1.
        classes: K different names.
        name: what the set is called in messages and provenance.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        self._check_part("train")
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise DataError(f"{self.name} has {len(self.classes)} class(es), wanted 2 to {MAX_CLASSES}: add classes")
        try:
            class_names(list(self.classes))
        except ValueError as error:
            raise DataError(f"{self.name}: {error}; rename the classes") from error
        self._check_part("test")
        if self.test_images.shape[1:] != self.shape:
            got = f"training images {self.train_images.shape}, test images {self.test_images.shape}"
            raise DataError(f"{self.name}: {got}, wanted one image shape: resize the test images")
        counts = np.bincount(self.train_labels, minlength=len(self.classes))
        if not counts.all():
            k = int(np.argmin(counts))
            wanted = f"wanted every label of 0..{len(counts) - 1} at least once: add images or renumber the labels"
            raise DataError(f"{self.name}: class {k} ({self.classes[k]!r}) has no training image, {wanted}")

    def _check_part(self, part: str) -> None:
        images = _checked_images(f"{self.name}: {part}_images", getattr(self, f"{part}_images"))
        labels = getattr(self, f"{part}_labels")
        labels = _checked_labels(f"{self.name}: {part}_labels", labels, len(images), len(self.classes))
        object.__setattr__(self, f"{part}_labels", labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def refuse_unlike(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Raises SettingError unless a set of this shape (C, H, W) and so many classes can have come from these."""
        if self.shape != tuple(shape) or self.num_classes != num_classes:
            theirs = f"{'x'.join(map(str, self.shape))} images of {self.num_classes} classes"
            ours = f"{'x'.join(map(str, shape))} of {num_classes}"
            raise SettingError(f"the data has {theirs}, the set {ours}: give the data that the set came from")

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over the shape, the labels and the pixels of the training part."""
        digest = hashlib.sha256(repr(self.train_images.shape).encode())
        digest.update(self.train_labels.astype("<i8").tobytes())
        for start in range(0, len(self.train_images), CHUNK):
            digest.update(self.train_images[start : start + CHUNK].tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std from the histogram of each channel: exact, whatever the number of images."""
        counts = np.zeros((self.shape[0], 256), np.int64)
        for start in range(0, len(self.train_images), CHUNK):
            for c in range(len(counts)):
                counts[c] += np.bincount(self.train_images[start : start + CHUNK, c].reshape(-1), minlength=256)
        levels = np.arange(256) / 255
        weights = counts / counts.sum(axis=1, keepdims=True)
        mean = weights @ levels
        std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
        return mean.astype(np.float32), np.maximum(std, MIN_STD).astype(np.float32)

    @property
    def mean(self) -> np.ndarray:
        """float32 (C,): mean of the training pixels, in units of [0, 1] pixels."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """float32 (C,): standard deviation of the training pixels, in units of [0, 1] pixels, at least 0.001."""
        return self._moments[1]

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (b, C, H, W) -> float32 (x / 255 - mean) / std. Raises DataError for another dtype or shape."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise DataError(f"images are {images.dtype} {images.shape}, wanted uint8 (b, {_text(self.shape)})")
        mean, std = (values[:, None, None] for values in self._moments)
        return np.asarray((images.astype(np.float32) / 255 - mean) / std)

    def split(self, fraction: float = 0.1, seed: int = 0) -> tuple["LabelledImages", tuple[np.ndarray, np.ndarray]]:
        """Hold out about `fraction` of every class of the training part for validation.

        Returns:
            The set without the validation part, and (val_images uint8 (V, C, H, W), val_labels int64 (V,)).

        Raises:
            SettingError: fraction is not within (0, 1).
            DataError: every class has a single image, so that nothing can be held out.
        """
        if not 0 < fraction < 1:
            raise SettingError(f"validation fraction={fraction!r}, wanted a number between 0 and 1")
        mask = held_out(self.train_labels, fraction, seed)
        if not mask.any():
            raise DataError(f"{self.name} has one image a class, wanted two or more to hold out a validation part")
        rest = replace(self, train_images=self.train_images[~mask], train_labels=self.train_labels[~mask])
        return rest, (self.train_images[mask], self.train_labels[mask])


def load_data(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> LabelledImages:
    """A built-in set by name, an `.npz` file or a folder of class folders.

    Args:
        name_or_path: `digits` (offline), `mnist`, `fashion-mnist`, `cifar10`, `cifar100`, `svhn` (downloaded once), or
            a path. Names win: write `./mnist` for a folder of that name.
        root: where downloads are kept; by default $EDGEDD_DATA, or ~/.cache/edgedd.

    Raises:
        DataError: unknown name, missing or unusable files.
        MissingExtra: scikit-learn, torchvision or pillow is needed and absent.
    """
    name = os.fspath(name_or_path)
    if name in data_sources.BUILT_IN:
        return LabelledImages(**data_sources.BUILT_IN[name](_root(root)), name=name)
    path = Path(name)
    if path.is_dir():
        return LabelledImages(**data_files.read_class_folders(path), name=name)
    if path.exists():
        return LabelledImages(**data_files.read_npz(path), name=name)
    known = ", ".join(data_sources.BUILT_IN)
    if path.suffix or len(path.parts) > 1:
        raise DataError(f"{name} does not exist, wanted an .npz file, a folder of class folders, or one of: {known}")
    nearest = difflib.get_close_matches(name.lower(), data_sources.BUILT_IN, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise DataError(f"unknown data set {name!r}, wanted one of: {known}, an .npz file or a folder{hint}")


def _root(root: str | os.PathLike[str] | None) -> Path:
    chosen = root or os.environ.get("EDGEDD_DATA") or Path.home() / ".cache" / "edgedd"
    return Path(chosen).expanduser()


def _checked_images(what: str, images: Any) -> np.ndarray:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DataError(f"{what} is {getattr(images, 'dtype', type(images).__name__)}, wanted a uint8 array")
    if images.ndim != 4 or not len(images):
        raise DataError(f"{what} has shape {images.shape}, wanted one or more images (N, C, H, W)")
    if images.shape[1] not in (1, 3):
        raise DataError(f"{what} has {images.shape[1]} channels, wanted 1 (grey) or 3 (RGB)")
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in images.shape[2:]):
        sides = _text(images.shape[2:])
        raise DataError(f"{what} is {sides} pixels, wanted sides of {MIN_SIDE}..{MAX_SIDE}: resize the images")
    return images


def _checked_labels(what: str, labels: Any, count: int, num_classes: int) -> np.ndarray:
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer):
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise DataError(f"{what} is {kind}, wanted whole numbers: convert with .astype('int64')")
    if labels.shape != (count,):
        raise DataError(f"{what} has shape {labels.shape} for {count} images, wanted ({count},): one label an image")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"{what} is {labels.min()}..{labels.max()}, wanted 0..{num_classes - 1}: renumber the labels")
    return labels.astype(np.int64)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
