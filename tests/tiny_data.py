"""A small valid data set in the layout of an .npz file."""

from pathlib import Path

import numpy as np

from edgedd.labelled_images import LabelledImages


def arrays(count: int = 12, height: int = 8, width: int = 9, num_classes: int = 3) -> dict[str, np.ndarray]:
    """A valid .npz, RGB."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % num_classes
    images = generator.integers(0, 256, (2, count, height, width, 3)).astype(np.uint8)
    return {"train_images": images[0], "train_labels": labels, "test_images": images[1], "test_labels": labels}


def saved(tmp_path: Path, **changes: object) -> Path:
    """The valid .npz with some arrays changed, or left out where None."""
    path = tmp_path / "data.npz"
    np.savez(path, **{name: value for name, value in {**arrays(), **changes}.items() if value is not None})
    return path


def tiny_images(count: int, shape: tuple[int, int, int], num_classes: int) -> LabelledImages:
    """Noise around a different picture for each class: easy to tell apart, the same at every call."""
    generator = np.random.default_rng(0)
    centres = generator.integers(60, 196, (num_classes, *shape))
    labels = np.arange(count) % num_classes
    images = np.clip(centres[labels] + generator.normal(0, 30, (count, *shape)), 0, 255).astype(np.uint8)
    names = tuple(f"class {k}" for k in range(num_classes))
    return LabelledImages(images, labels, images[:num_classes], labels[:num_classes], names, "tiny")
