"""One training by the device runtime, watched for a report: losses, accuracy on the way, and what it then confuses."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgedd.device import Student
from edgedd.labelled_images import LabelledImages

LOOKS = 12  # at the accuracy, during training
LOOKED_AT = 1000  # images each time
OnStep = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True)
class Learning:
    """What a training did.

    Attributes:
        student: its name.
        seed: of the start and the order.
        steps, seconds: of training, without the looks at the accuracy.
        losses: of each step.
        looks: (step, accuracy on `looked_at` test images); empty without data.
        confusion: (K, K) int, true class by predicted class on all test images; None without data.
    """

    student: str
    seed: int
    steps: int
    seconds: float
    losses: np.ndarray
    looks: list[tuple[int, float]]
    looked_at: int
    confusion: np.ndarray | None

    @property
    def accuracy(self) -> float | None:
        """Fraction of all test images, after the last step."""
        return None if self.confusion is None else float(np.trace(self.confusion) / self.confusion.sum())


def learn(student: Student, data: LabelledImages | None, seed: int, on_step: OnStep | None = None) -> Learning:
    """Train by the bundle's recipe and test; `on_step` as of `edgedd.evaluation`."""
    looks: list[tuple[int, float]] = []
    images, labels = _some(data, seed) if data else (None, None)

    def watch(step: int, steps: int, loss: float) -> None:
        if images is not None and labels is not None and (step % max(1, steps // LOOKS) == 0 or step == steps):
            looks.append((step, student.evaluate(images, labels)))
        if on_step:
            on_step("train", step, steps, loss)

    result = student.fit(seed, on_step=watch)
    confusion = None
    if data:
        predicted = student.predict(data.test_images).argmax(axis=1)
        places = data.test_labels * data.num_classes + predicted
        confusion = np.bincount(places, minlength=data.num_classes**2).reshape(data.num_classes, data.num_classes)
    count = 0 if labels is None else len(labels)
    return Learning(student.bundle.student, seed, result.steps, result.seconds, result.losses, looks, count, confusion)


def _some(data: LabelledImages, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most LOOKED_AT test images and their labels."""
    rows = np.random.default_rng(seed).permutation(len(data.test_labels))[:LOOKED_AT]
    return data.test_images[rows], data.test_labels[rows]
