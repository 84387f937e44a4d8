"""New images in a bounded number of bytes, every class in proportion, whatever the order in which they come.

Chrysakis and Moens, "Online Continual Learning from Imbalanced Data" (ICML 2020), Algorithm 1: class-balancing
reservoir sampling. Images stay uint8.
"""

from collections.abc import Mapping

import numpy as np

from edgedd.errors import DataError

LABEL_BYTES = 2
Shape = tuple[int, int, int]


class Reservoir:
    """Up to `capacity` images of `shape` (C, H, W). `images` (n, C, H, W) and `labels` (n,) are what it holds."""

    def __init__(self, capacity: int, shape: Shape) -> None:
        self.capacity = capacity
        self._images = np.empty((capacity, *shape), np.uint8)  # memory is taken when an image comes
        self._labels = np.empty(capacity, np.uint16)
        self._count = 0
        self._seen: dict[int, int] = {}
        self._full: set[int] = set()

    @property
    def images(self) -> np.ndarray:
        """uint8 (n, C, H, W)."""
        return self._images[: self._count]

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,)."""
        return self._labels[: self._count].astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        return self._count * (self._images[:1].nbytes + LABEL_BYTES)

    def add(self, image: np.ndarray, label: int, generator: np.random.Generator) -> None:
        """Take an image (C, H, W), perhaps in the place of another one, or leave it."""
        self._seen[label] = self._seen.get(label, 0) + 1
        place = self._place(label, generator)
        if place is not None:
            self._images[place], self._labels[place] = image, label
        if self._count == self.capacity:
            self._full |= set(self._largest())

    def _place(self, label: int, generator: np.random.Generator) -> int | None:
        if self._count < self.capacity:
            self._count += 1
            return self._count - 1
        own = np.flatnonzero(self.labels == label)
        if label not in self._full:
            victims = np.flatnonzero(self.labels == generator.choice(self._largest()))
            return int(generator.choice(victims))
        if generator.random() <= len(own) / self._seen[label] and len(own):
            return int(generator.choice(own))
        return None

    def _largest(self) -> np.ndarray:
        """The classes of which it holds most."""
        counts = np.bincount(self.labels)
        return np.flatnonzero(counts == counts.max())

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        seen = np.array(sorted(self._seen.items()), np.int64).reshape(-1, 2)
        arrays = {"images": self.images.copy(), "labels": self._labels[: self._count].copy(), "seen": seen}
        return {f"{prefix}.{name}": array for name, array in arrays.items()} | {
            f"{prefix}.full": np.array(sorted(self._full), np.int64)
        }

    def restore(self, prefix: str, tensors: Mapping[str, np.ndarray], num_classes: int) -> None:
        """The inverse of `tensors`. Raises DataError for what cannot have come from it."""
        images, labels, seen, full = (tensors.get(f"{prefix}.{n}") for n in ("images", "labels", "seen", "full"))
        if images is None or labels is None or seen is None or full is None:
            raise DataError(f"{prefix} is incomplete")
        kinds = [str(array.dtype) for array in (images, labels, seen, full)] == ["uint8", "uint16", "int64", "int64"]
        shaped = images.shape[1:] == self._images.shape[1:] and labels.shape == images.shape[:1]
        if not (kinds and shaped and len(images) <= self.capacity and seen.shape[1:] == (2,) and full.ndim == 1):
            raise DataError(f"{prefix} has arrays of another type or shape")
        numbers = np.concatenate([labels.astype(np.int64), seen[:, 0], full])
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < num_classes):
            raise DataError(f"{prefix} has labels outside of 0..{num_classes - 1}")
        counts = np.bincount(labels, minlength=num_classes)
        self._seen = {int(label): int(count) for label, count in seen}
        if any(self._seen.get(int(c), 0) < counts[c] for c in np.flatnonzero(counts)):
            raise DataError(f"{prefix} holds more images than were seen")
        self._count, self._full = len(images), set(full.tolist())
        self._images[: self._count], self._labels[: self._count] = images, labels
