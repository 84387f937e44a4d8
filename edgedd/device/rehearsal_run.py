"""One run of learning from new images while rehearsing: its settings, how far it is, and what it is watched by.

Letters: m new images and k rows of the set make a batch, K classes.
"""

import math
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from edgedd.device.decoding import decoded
from edgedd.device.reservoir import Reservoir
from edgedd.device.student import Student
from edgedd.errors import SettingError
from edgedd.recipe import Recipe
from edgedd.stratified import held_out

HELD_OUT, MOST_HELD_ROWS = 0.2, 500


@dataclass(frozen=True)
class Change:
    """Accuracy before and after, as fractions, on `count` images; None where there are none, or no end yet."""

    before: float | None
    after: float | None
    count: int


@dataclass(frozen=True)
class Settings:
    """How a run trains.

    Attributes:
        steps: at most.
        ratio: share of new images in a batch, in (0, 1]; the rest is rehearsed.
        lr: learning rate at the first step; it falls to 0 over `steps` along a cosine.
        batch_size: new and rehearsed images of a step.
        patience: checks without a lower loss after which the run ends.
    """

    steps: int
    ratio: float
    lr: float
    batch_size: int
    patience: int

    def __post_init__(self) -> None:
        for name, most in (("steps", 10_000_000), ("batch_size", 65_536), ("patience", 10_000)):
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number <= most:
                raise SettingError(f"{name}={number!r}, wanted a whole number in [1, {most}]")
        for name, most in (("ratio", 1), ("lr", 100)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= most:
                raise SettingError(f"{name}={number!r}, wanted a number above 0 and up to {most}")

    @property
    def new(self) -> int:
        """m, at least one."""
        return max(1, round(self.ratio * self.batch_size))

    @property
    def check_every(self) -> int:
        """Steps between two checks: twenty in a run."""
        return max(1, self.steps // 20)

    def learning_rate(self, step: int) -> float:
        """Of step `step`, counted from 0."""
        return Recipe(student_lr=self.lr, steps=self.steps).learning_rate(step)

    @classmethod
    def names(cls) -> list[str]:
        """The fields."""
        return [each.name for each in fields(cls)]


@dataclass
class Run:
    """How far a run is.

    Attributes:
        settings: of the run.
        known: classes from this number on are new in this run.
        before: accuracies at its start, on old classes, new ones and new images.
        step, misses: steps so far; checks since the lowest loss.
        best_loss, best_step, best: the lowest loss of a check, its step, the parameters then.
        losses: of each step.
    """

    settings: Settings
    known: int
    before: tuple[float | None, float | None, float | None]
    step: int = 0
    misses: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    best: dict[str, np.ndarray] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.settings.steps or self.misses >= self.settings.patience

    def note(self, loss: float, weights: dict[str, np.ndarray]) -> None:
        """What a check found."""
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.best, self.misses = loss, self.step, weights, 0
        else:
            self.misses += 1


class Measured(NamedTuple):
    """Loss, and accuracy on old classes, new classes and new images: None where there is nothing to tell it from."""

    loss: float
    old: float | None
    new: float | None
    images: float | None


class Watch:
    """What a run is watched by: rows of the set that are not rehearsed, and new images that are not learned from.

    Where a class has one row alone none is kept apart, and all rows are both. `test`, images and labels, takes the
    place of both in the accuracies, not in the loss by which a run ends.
    """

    def __init__(
        self, student: Student, held: Reservoir, seed: int, test: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        synthetic = student.synthetic
        truth = np.arange(synthetic.count) // synthetic.ipc
        apart = held_out(truth, HELD_OUT, seed)
        self.rehearsed = np.flatnonzero(~apart)
        rows = np.flatnonzero(apart) if apart.any() else np.arange(synthetic.count)
        if len(rows) > MOST_HELD_ROWS:
            rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_HELD_ROWS, replace=False))
        self._rows, self._truth, self._soft = rows, truth[rows], synthetic.soft_labels(rows)
        self._held, self._test = held, test

    def counts(self, known: int) -> tuple[int, int, int]:
        """How many images `old`, `new` and `images` of `measure` are told from."""
        labels = self._test[1] if self._test else np.concatenate([self._truth, self._held.labels])
        new = int((labels >= known).sum())
        return len(labels) - new, new, len(self._held.labels)

    def measure(self, student: Student, known: int) -> Measured:
        """With classes below `known` old ones."""
        logits = student.predict(decoded(student.synthetic, self._rows))
        losses = [float(-(self._soft * _log_softmax(logits)[:, : self._soft.shape[1]]).sum(1).mean())]
        right, labels = logits.argmax(1) == self._truth, self._truth
        images = None
        if len(self._held.labels):
            logits, truth = student.predict(self._held.images), self._held.labels
            familiar = truth < logits.shape[1]
            if familiar.any():
                own = _log_softmax(logits)[familiar]
                losses.append(float(-np.take_along_axis(own, truth[familiar, None], axis=1).mean()))
            own_right = logits.argmax(1) == truth
            images = float(own_right.mean())
            right, labels = np.concatenate([right, own_right]), np.concatenate([labels, truth])
        if self._test:
            labels = self._test[1]
            right = student.predict(self._test[0]).argmax(1) == labels
        old = labels < known
        return Measured(float(np.mean(losses)), _share(right, old), _share(right, ~old), images)


def _share(right: np.ndarray, part: np.ndarray) -> float | None:
    return float(right[part].mean()) if part.any() else None


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
