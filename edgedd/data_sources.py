"""Built-in data sets: scikit-learn's digits, which need no network, and those of torchvision's downloader."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.errors import DataError, MissingExtra
from edgedd.stratified import held_out

Parts = dict[str, Any]  # the fields of LabelledImages but its name


def digits(_root: Path) -> Parts:
    """1797 grey digits of 8 x 8 pixels, a fifth of each class as the test part. Raises MissingExtra."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "the built-in data set digits", "distill") from error
    stored = load_digits()
    images = np.round(stored.images[:, None] * (255 / 16)).astype(np.uint8)
    labels = stored.target.astype(np.int64)
    return parts_of(images, labels, held_out(labels, 0.2, seed=0), tuple(map(str, range(10))))


def parts_of(images: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> Parts:
    """Divide images (N, C, H, W) and labels (N,) by the mask `test` (N,)."""
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
        "classes": classes,
    }


def _from_torchvision(dataset: str, folder: str, files: str) -> Callable[[Path], Parts]:
    """A reader of torchvision's `dataset` under `folder` of the root; `files` is where torchvision looks there."""

    def read(root: Path) -> Parts:
        try:
            import torchvision.datasets
        except ImportError as error:
            raise MissingExtra("torchvision", f"the built-in data set {dataset}", "distill") from error
        kind = getattr(torchvision.datasets, dataset)
        train, test = (_load(kind, root / folder, files, part) for part in ("train", "test"))
        classes = getattr(train, "classes", None) or map(str, range(10))
        return {
            "train_images": _pixels(train),
            "train_labels": _labels(train),
            "test_images": _pixels(test),
            "test_labels": _labels(test),
            "classes": tuple(str(name) for name in classes),
        }

    return read


def _load(kind: Any, root: Path, files: str, part: str) -> Any:
    """Files that are there are used as they are; otherwise they are downloaded."""
    selection = {"split": part} if kind.__name__ == "SVHN" else {"train": part == "train"}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return kind(str(root), download=False, **selection)
        except (OSError, RuntimeError):
            pass
        try:
            return kind(str(root), download=True, **selection)
        except (OSError, RuntimeError) as error:
            place = root / files
            raise DataError(
                f"{kind.__name__} is not in {root} and cannot be downloaded ({error}); put its files into {place}, "
                "or name the root that has them with $EDGEDD_DATA"
            ) from error


def _pixels(dataset: Any) -> np.ndarray:
    """uint8 (N, C, H, W) from torchvision's (N, H, W) tensor, (N, H, W, 3) array or, for SVHN, (N, 3, H, W) array."""
    images = np.asarray(dataset.data)
    if images.ndim == 3:
        return images[:, None]
    return images if images.shape[1] == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(dataset: Any) -> np.ndarray:
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return np.asarray(labels, np.int64)


BUILT_IN: dict[str, Callable[[Path], Parts]] = {
    "digits": digits,
    "mnist": _from_torchvision("MNIST", ".", "MNIST/raw"),
    "fashion-mnist": _from_torchvision("FashionMNIST", ".", "FashionMNIST/raw"),
    "cifar10": _from_torchvision("CIFAR10", ".", "cifar-10-batches-py"),
    "cifar100": _from_torchvision("CIFAR100", ".", "cifar-100-python"),
    "svhn": _from_torchvision("SVHN", "svhn", "."),
}
