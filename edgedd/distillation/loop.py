"""The outer loop that every method shares: Adam or SGD on factors, mappers and label logits, rounding in the loop.

Adam's rates fall to 0 along a cosine. SGD is the papers': momentum 0.5 and rates that stay. A method whose paper steps
after every class (`steps_per_class`) still takes one step an iteration: with momentum m and K classes it moves what
belongs to one class exactly as the K steps do when its momentum is m^K and its rate is (1 - m^K) / (1 - m) times as
high, for between a class's own steps its images only coast.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.compute import Compute
from edgedd.distillation.methods import Method, image_lr
from edgedd.distillation.rate import Rate
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import EdgeddError

MAPPERS = ("left", "right", "basis", "mean")
REFIT_EVERY = 25
WARM_STEPS = 10
RECOUNTS = 20  # of how many steps fit before a deadline
SGD_MOMENTUM = 0.5


class Progress(NamedTuple):
    """One finished step of a stage: "teacher", "augmentation", "distil" or "recipe"; some stages have no loss."""

    stage: str
    step: int
    total: int
    loss: float | None


OnStep = Callable[[Progress], None]


@dataclass(frozen=True)
class Length:
    """How long to run: `iterations`, or until about `deadline` (time.monotonic()), counted by the pace of the steps."""

    iterations: int | None = None
    deadline: float | None = None


@dataclass
class Loop:
    """One distillation under way.

    Attributes:
        rounding_from: fraction of the iterations after which rounding to the file's bits is in the loop.
        rate: the price of bits, for a set that is stored compact.
        watch: called after every step; may call `finish_in`.
        start: the set as it was, where that is still asked for at the end.
        chosen: fields of the method that this run chose, as plain values.
        scores: (iteration, validation accuracy) of the checks for gains.
        counted: iteration and time at which the steps that fit before `deadline` were last counted; what is watched
            between steps takes its time beside both. None: the number of iterations stays.
    """

    synthetic: TrainableSet
    method: Method
    real: RealImages
    compute: Compute
    generator: np.random.Generator
    rounding_from: float = 0.3
    rate: Rate | None = None
    watch: "Callable[[Loop], None] | None" = None
    start: TrainableSet | None = None
    chosen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = self.method.init(self.synthetic, self.real, self.compute, self.generator)
        self.optimizer, self.rates = _optimizer(self.synthetic, self.method)
        self.decays = isinstance(self.optimizer, torch.optim.Adam)
        self.iteration = 0
        self.total = 0
        self.bend: tuple[int, float] | None = None
        self.scores: list[tuple[int, float]] = []
        self.deadline = 0.0
        self.counted: tuple[int, float] | None = None

    def run(self, length: Length, checkpoint: Checkpoint | None, on_step: OnStep | None) -> None:
        """All iterations that remain; none after the deadline. Raises EdgeddError when the loss is no longer finite."""
        late = length.deadline is not None and time.monotonic() > length.deadline
        if not self.rates or self.compute.ranks.agreed(late):
            return
        if on_step and hasattr(self.state, "report"):
            self.state.report = lambda stage, step, total: on_step(Progress(stage, step, total, None))
        if not self.total:
            self.total = length.iterations or 0
        if not self.total:
            self.deadline = length.deadline or 0.0
            self.total = self.compute.ranks.agreed(self._measure(on_step))
            self.counted = (self.iteration, time.monotonic())
        while self.iteration < self.total:
            self._step(on_step)
            self._recount()
            if self.watch:
                self._watched(self.watch)
            if checkpoint and checkpoint.due():
                checkpoint.save(self.state_dict())
        if checkpoint:
            checkpoint.save(self.state_dict())
        if hasattr(self.state, "finish"):
            self.state.finish(self.synthetic)

    def finish_in(self, steps: int) -> None:
        """Let the rates fall to 0 over the next `steps`, and end there, where that is sooner than planned."""
        if self.iteration + steps < self.total:
            self.bend = (self.iteration, self._decay())
            self.total = self.iteration + steps

    def _decay(self) -> float:
        """Of the rates: along a cosine to 0 at the end; the bend, where there is one, begins a cosine of its own."""
        begin, height = self.bend or (0, 1.0)
        done = (self.iteration - begin) / max(self.total - begin, 1)
        return 0.5 * height * (1 + math.cos(math.pi * done)) if self.decays else 1.0

    def _measure(self, on_step: OnStep | None) -> int:
        """Time the first steps and count how many fit before the deadline."""
        started = 0.0
        self.total = 2**31
        for step in range(WARM_STEPS):
            if step == WARM_STEPS // 2:
                started = time.monotonic()
            self._step(None)
        per_step = (time.monotonic() - started) / (WARM_STEPS - WARM_STEPS // 2)
        return self.iteration + max(0, int((self.deadline - time.monotonic()) / per_step))

    def _recount(self) -> None:
        """Now and then, keep to the deadline by the pace since the last time: other work may have come, or ended."""
        if self.counted is None or self.bend or self.iteration - self.counted[0] < max(self.total // RECOUNTS, 1):
            return
        now = time.monotonic()
        per_step = (now - self.counted[1]) / (self.iteration - self.counted[0])
        left = self.compute.ranks.agreed(max(0, int((self.deadline - now) / per_step)))
        self.total, self.counted = self.iteration + left, (self.iteration, now)

    def _watched(self, watch: "Callable[[Loop], None]") -> None:
        begun = time.monotonic()
        watch(self)
        if self.counted:
            took = time.monotonic() - begun
            self.deadline, self.counted = self.deadline + took, (self.counted[0], self.counted[1] + took)

    def _step(self, on_step: OnStep | None) -> None:
        first_rounded = int(self.rounding_from * self.total)
        rounds = self.iteration >= first_rounded
        if rounds and (self.iteration - first_rounded) % REFIT_EVERY == 0:
            self.synthetic.fit_scales()
        decay = self._decay()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * decay
        if hasattr(self.state, "total"):
            self.state.total = self.total
        loss, self.state = self.method.loss(self.synthetic, self.real, self.state, self.generator)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        leaves = [leaf for group in self.optimizer.param_groups for leaf in group["params"]]
        value = float(self.compute.ranks.average(leaves, loss))
        if not math.isfinite(value):
            raise EdgeddError(
                f"the loss is {value} at iteration {self.iteration}: lower the learning rate (--set lr=...)"
            )
        if self.rate:
            self.rate.charge(self.synthetic)
        self.optimizer.step()
        self.iteration += 1
        if on_step:
            on_step(Progress("distil", self.iteration, self.total, value))

    def state_dict(self) -> dict[str, Any]:
        """All that changes, and what was chosen."""
        return {
            "iteration": self.iteration,
            "total": self.total,
            "set": self.synthetic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.state.state_dict(),
            "generator": json.dumps(self.generator.bit_generator.state),
            "chosen": self.chosen,
            "start": self.start.state_dict() if self.start else None,
            "scores": [list(pair) for pair in self.scores],
            "rate": list(astuple(self.rate)) if self.rate else None,
            "bend": list(self.bend) if self.bend else None,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue as if never interrupted."""
        self.iteration, self.total = saved["iteration"], saved["total"]
        self.synthetic.load_state_dict(saved["set"])
        if self.start and saved["start"]:
            self.start.load_state_dict(saved["start"])
        self.scores = [(pair[0], pair[1]) for pair in saved["scores"]]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state.load_state_dict(saved["method"])
        self.generator.bit_generator.state = json.loads(saved["generator"])
        self.rate = Rate(*saved["rate"]) if saved["rate"] else None
        self.bend = (saved["bend"][0], saved["bend"][1]) if saved["bend"] else None


def _optimizer(synthetic: TrainableSet, method: Method) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimizer, and the rate of each of its groups at the first step; no rates where nothing can move."""
    mappers = [values for name, values in synthetic.factors.items() if name in MAPPERS]
    others = [values for name, values in synthetic.factors.items() if name not in MAPPERS]
    image_rate = image_lr(method, synthetic.stored_per_class)
    parts = [(others, image_rate), (mappers, method.lr_mappers), ([synthetic.label_logits], method.lr_labels)]
    groups = [{"params": leaves, "lr": rate} for leaves, rate in parts if leaves and rate > 0]
    rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
    if not groups:
        return torch.optim.Adam([synthetic.label_logits]), []
    if getattr(method, "optimizer", "adam") == "adam":
        return torch.optim.Adam(groups), rates
    steps = synthetic.label_logits.shape[1] if getattr(method, "steps_per_class", False) else 1
    momentum = SGD_MOMENTUM**steps
    longer = (1 - momentum) / (1 - SGD_MOMENTUM) if steps > 1 else 1.0
    return torch.optim.SGD(groups, lr=rates[0], momentum=momentum), [longer * rate for rate in rates]
