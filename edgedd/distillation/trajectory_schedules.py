"""What the trajectory-matching papers set, by images a class and by how many classes there are.

MTT: the authors' commands (DC-BENCH prints them). DATM: the configurations of its released code, whose runs have
10,000 iterations. All of them whiten CIFAR (ZCA), which we do not. LSS: its paper's were not to be had; these are ours,
after FreD's and DATM's. "short" is for minutes on a few cores: a tenth of the images an iteration, at a rate that takes
as few steps as far.
"""

import math
from dataclasses import dataclass
from typing import Literal

Published = Literal["mtt", "datm", "lss", "short"]
MANY_CLASSES = 50


@dataclass(frozen=True)
class Schedule:
    """Settings of a run.

    Attributes:
        inner_steps: steps on synthetic images (N).
        expert_epochs: epochs of the expert that they are to cover (M).
        first_latest, latest: trajectories start before this epoch: first this one, in the end that one.
        widening: fraction of the run after which it is that one.
        batch: synthetic images a step.
        rate, lr_rate: of the inner training at the start, and of that rate's own SGD.
        lr_images: of SGD on pixels.
        ema: decay of the average that is stored, 0 for none.
        threshold: a loss above it moves nothing; 0 for none.
        earliest: trajectories start at this epoch at the earliest.
    """

    inner_steps: int
    expert_epochs: int
    first_latest: int
    latest: int
    widening: float
    batch: int
    rate: float
    lr_rate: float
    lr_images: float
    ema: float = 0.0
    threshold: float = 0.0
    earliest: int = 0

    @property
    def last_epoch(self) -> int:
        """The last epoch of an expert that is read."""
        return self.latest - 1 + self.expert_epochs

    def latest_at(self, iteration: int, total: int) -> int:
        """T(it): trajectories start before this epoch at `iteration` of `total`."""
        widened = iteration / max(1.0, self.widening * total)
        return min(self.latest, self.first_latest + int((self.latest - self.first_latest) * widened))


FEW: dict[Published, dict[int, Schedule]] = {
    "mtt": {
        1: Schedule(50, 2, 2, 2, 0, 256, 0.01, 1e-7, 100),
        10: Schedule(30, 2, 20, 20, 0, 256, 0.001, 1e-5, 100),
        50: Schedule(30, 2, 40, 40, 0, 500, 0.001, 1e-5, 1000),
    },
    "datm": {
        1: Schedule(80, 2, 4, 4, 0, 10, 0.01, 1e-7, 100, 0.995, 1.1),
        10: Schedule(80, 2, 10, 20, 0.1, 100, 0.01, 1e-5, 100, 0.9995, 1.0),
        50: Schedule(80, 2, 20, 40, 0.2, 500, 0.01, 1e-5, 1000, 0.995, 1.0),
    },
    "lss": {
        1: Schedule(50, 2, 1, 5, 0.25, 64, 0.01, 1e-7, 100, 0.99, 1.1),
        10: Schedule(60, 2, 2, 15, 0.25, 128, 0.01, 1e-5, 100, 0.99, 1.1),
    },
}
MANY: dict[Published, dict[int, Schedule]] = {
    "mtt": {
        1: Schedule(20, 3, 20, 20, 0, 256, 0.01, 1e-5, 1000),
        10: Schedule(20, 2, 20, 20, 0, 1000, 0.01, 1e-5, 1000),
        50: Schedule(80, 2, 40, 40, 0, 125, 0.01, 1e-5, 1000),
    },
    "datm": {
        1: Schedule(40, 3, 10, 20, 0.1, 1000, 0.01, 1e-5, 1000, 0.9995, 1.0),
        10: Schedule(80, 2, 30, 50, 0.2, 1000, 0.01, 1e-5, 1000, 0.9995, 1.0),
        50: Schedule(80, 2, 70, 70, 0, 1000, 0.01, 1e-5, 1000, 0.9995, 1.0, earliest=20),
    },
    "lss": {
        1: Schedule(50, 2, 2, 15, 0.25, 128, 0.01, 1e-5, 1000, 0.99, 1.1),
        10: Schedule(60, 2, 5, 20, 0.25, 256, 0.01, 1e-5, 1000, 0.99, 1.1),
    },
}
SHORT = Schedule(10, 1, 1, 4, 0.25, 50, 0.1, 1e-7, 100, 0.99, 1.1)


def schedule(published: Published, ipc: float, num_classes: int) -> Schedule:
    """That of the nearest size; `ipc` images a class, or what takes as many numbers."""
    if published == "short":
        return SHORT
    listed = (MANY if num_classes >= MANY_CLASSES else FEW)[published]
    return listed[min(listed, key=lambda known: abs(math.log(ipc / known)))]
