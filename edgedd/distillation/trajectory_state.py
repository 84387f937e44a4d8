"""What trajectory matching keeps between steps: experts, the learned inner rate, the average that is stored."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.contrastive import Contrast
from edgedd.distillation.expert_files import ExpertFolder
from edgedd.distillation.experts import ExpertsInMemory, ExpertTraining, few_experts
from edgedd.distillation.flat_passes import FlatPasses
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.trajectory_schedules import Schedule
from edgedd.errors import SettingError
from edgedd.recipe import Recipe
from edgedd.students import default_student, student

if TYPE_CHECKING:
    from edgedd.distillation.trajectory_matching import TrajectoryMatching

log = logging.getLogger("edgedd")
LABELLING_EXPERTS = 10
LOWEST_RATE = 1e-5
BETA1, BETA2 = 0.9, 0.999
SGD_MOMENTUM = 0.5


@dataclass
class LearnedRate:
    """The inner learning rate. SGD with momentum 0.5 is the papers'; Adam moves its logarithm."""

    value: float
    lr: float
    adam: bool
    first: float = 0.0
    second: float = 0.0
    steps: int = 0

    def lower(self) -> None:
        """A hundredth less."""
        self.value = max(LOWEST_RATE, 0.99 * self.value)

    def move(self, gradient: float) -> None:
        """One step down."""
        self.steps += 1
        if not self.adam:
            self.first = SGD_MOMENTUM * self.first + gradient
            self.value = max(LOWEST_RATE, self.value - self.lr * self.first)
            return
        gradient *= self.value
        self.first = BETA1 * self.first + (1 - BETA1) * gradient
        self.second = BETA2 * self.second + (1 - BETA2) * gradient**2
        first, second = self.first / (1 - BETA1**self.steps), self.second / (1 - BETA2**self.steps)
        self.value = max(LOWEST_RATE, self.value * math.exp(-self.lr * first / (math.sqrt(second) + 1e-12)))


class Matching:
    """One run of trajectory matching.

    Attributes:
        total: iterations of the run, told by the loop.
        report: told of the epochs of experts that are trained here (stage, done, total), where the loop sets it.
    """

    def __init__(self, method: "TrajectoryMatching", schedule: Schedule, real: RealImages, compute: Compute) -> None:
        network = student(default_student(real.shape, method.width), real.shape, real.num_classes)
        contrast = Contrast(method.contrastive_kind, method.temperature, method.inner_weight)
        self.method, self.schedule, self.compute = method, schedule, compute
        self.passes = FlatPasses(network, compute, contrast if method.two_views else None)
        self.experts: ExpertFolder | ExpertsInMemory | None = None
        adam = method.optimizer == "adam"
        lr_rate = method.lr_rate if method.lr_rate is not None else 0.01 if adam else schedule.lr_rate
        self.rate = LearnedRate(schedule.rate, lr_rate, adam)
        self.average: dict[str, torch.Tensor] = {}
        self.iteration, self.total = 0, 0
        self.report: Callable[[str, int, int], None] | None = None
        if method.experts is not None:
            self.experts = self._opened(Path(method.experts))

    @property
    def student_lr(self) -> float:
        """The learning rate that the set has learned to be trained at (without momentum)."""
        return self.rate.value

    def recipes(self) -> list[Recipe]:
        """How the set has learned to be trained: as in its inner training; and at that pace with the usual momentum."""
        usual, batch = Recipe(), self.schedule.batch
        pace = self.student_lr / (1 - self.method.momentum)
        own = {"momentum": self.method.momentum, "weight_decay": 0.0, "schedule": "constant"}
        return [
            replace(usual, student_lr=min(100.0, self.student_lr), batch_size=batch, **own),  # type: ignore[arg-type]
            replace(usual, student_lr=min(100.0, (1 - usual.momentum) * pace), batch_size=batch),
        ]

    def begin(self, synthetic: TrainableSet, real: RealImages, generator: np.random.Generator) -> None:
        """At the first iteration: experts where none are given, labels by them where labels are learned."""
        if self.iteration:
            return
        if self.experts is None:
            training = ExpertTraining(
                FlatPasses(self.passes.network, self.compute), real, strategy=self.method.strategy
            )
            told = partial(self.report, "experts") if self.report else None
            count, epochs = self.method.expert_count, self.schedule.last_epoch
            self.experts = few_experts(training, count, epochs, generator, told)
        if self.method.lr_labels:
            with torch.no_grad():
                self._label(synthetic)

    def pair(self, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (P,) of a random expert where the inner training starts, and where it is to end."""
        assert self.experts is not None  # since `begin`
        latest = self.schedule.latest_at(self.iteration, self.total)
        expert = int(generator.integers(self.experts.count))
        start = int(generator.integers(self.schedule.earliest, max(latest, self.schedule.earliest + 1)))
        both = (self.experts.weights(expert, epoch) for epoch in (start, start + self.schedule.expert_epochs))
        first, last = (weights.to(self.compute.device) for weights in both)
        return first, last

    @torch.no_grad()
    def follow(self, synthetic: TrainableSet) -> None:
        """Average the factors and label logits as they are now; the first of them count less at the beginning."""
        if not self.schedule.ema:
            return
        decay = min(self.schedule.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, values in _leaves(synthetic).items():
            if name not in self.average:
                self.average[name] = values.detach().clone()
            self.average[name].lerp_(values.detach(), 1 - decay)

    @torch.no_grad()
    def finish(self, synthetic: TrainableSet) -> None:
        """At the end of the run: what is stored is the average."""
        self.follow(synthetic)
        for name, values in self.average.items():
            _leaves(synthetic)[name].copy_(values)

    def state_dict(self) -> dict[str, Any]:
        """All that changes, and experts that are nowhere else."""
        own = self.experts.trajectories if isinstance(self.experts, ExpertsInMemory) else []
        return {
            "iteration": self.iteration,
            "rate": dict(vars(self.rate)),
            "average": dict(self.average),
            "experts": [torch.stack(weights) for weights in own],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        device = self.compute.device
        self.iteration, self.rate = state["iteration"], LearnedRate(**state["rate"])
        self.average = {name: values.to(device) for name, values in state["average"].items()}
        if state["experts"]:
            self.experts = ExpertsInMemory([list(weights.to(device)) for weights in state["experts"]])

    def _opened(self, path: Path) -> ExpertFolder:
        folder, wanted = ExpertFolder.open(path), self.schedule.last_epoch
        if folder.settings.network != self.passes.network.name or folder.settings.parameters != sum(self.passes.sizes):
            ours = f"{self.passes.network.name} of {sum(self.passes.sizes)} weights"
            theirs = f"{folder.settings.network} of {folder.settings.parameters}"
            raise SettingError(f"the experts in {path} are {theirs}, wanted {ours}: set --width, or train others")
        if folder.epochs < wanted:
            raise SettingError(
                f"the experts in {path} have {folder.epochs} epochs, wanted {wanted}: train others with --epochs "
                f"{wanted}, or set latest and expert_epochs lower"
            )
        return folder

    def _label(self, synthetic: TrainableSet) -> None:
        """DATM: the mean logits, at their last epoch, of the experts that are right; where none is, they stay."""
        assert self.experts is not None
        images = synthetic.images().detach()
        classes = torch.from_numpy(synthetic.classes).to(images.device)
        total, right = torch.zeros_like(synthetic.label_logits), torch.zeros(len(images), device=images.device)
        for expert in range(min(self.experts.count, LABELLING_EXPERTS)):
            weights = self.experts.weights(expert, self.experts.epochs).to(images.device)
            parameters = self.passes.parameters(weights)
            parts = [networks.logits(self.passes.network, parameters, part) for part in torch.split(images, 250)]
            outputs = torch.cat(parts)
            agrees = outputs.argmax(1) == classes
            total, right = total + outputs * agrees[:, None], right + agrees
        known = right > 0
        synthetic.label_logits[known] = total[known] / right[known, None]


def _leaves(synthetic: TrainableSet) -> dict[str, torch.Tensor]:
    return {**synthetic.factors, "label_logits": synthetic.label_logits}
