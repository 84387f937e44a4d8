"""Trajectory matching: from an expert's weights, training on the synthetic set is to end at the expert's later ones.

MTT: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (CVPR 2022). DATM: Guo et al.,
"Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching" (ICLR 2024): learned soft labels, and
easy segments first. LSS: Kong et al., MTT in low-rank spaces (ICASSP 2025, arXiv 2503.07998), and the contrastive
enhancement of DATM (arXiv 2505.15267): of both only the abstracts were to be had, so what they leave open is our
reading: LSS is DATM on factors, with mappers made orthonormal again now and then; contrast acts as a term of the inner
training ("fusion") and on the images directly ("update").
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from edgedd.distillation import siamese
from edgedd.distillation.compute import Compute
from edgedd.distillation.contrastive import Kind
from edgedd.distillation.expert_files import ExpertFolder
from edgedd.distillation.orthonormal import absorb, changes
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.starting_rows import Labeller, right_ones, sorted_alike
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.trajectory import InnerTraining, Step
from edgedd.distillation.trajectory_schedules import Published, Schedule, schedule
from edgedd.distillation.trajectory_state import Matching
from edgedd.errors import SettingError


@dataclass(frozen=True)
class TrajectoryMatching:
    """Hyperparameters; None: what the paper named by `published` sets at this size (see trajectory_schedules).

    Attributes:
        published: whose settings; "short" is ours, for minutes on a few cores.
        inner_steps, expert_epochs, first_latest, latest, batch, rate, lr_rate, ema, threshold: see `Schedule`;
            `lr_rate` with adam is that of the rate's logarithm, 0.01.
        momentum: of the inner training (the papers': 0).
        strategy: families of the augmentation: "natural", "digits" (no mirror) or "none".
        unroll: "exact", or "tesla": earlier steps do not count (Cui et al. 2023), for comparison.
        contrastive: weight of both contrastive terms; `contrastive_inner`, `contrastive_direct`: of each.
        start: "random" real images, those that the teacher gets "right", or these in an order in which rows that share
            a subspace of a class are alike ("clustered").
        orthonormal_every: iterations after which mappers are made orthonormal again.
        experts: a folder of `edgedd experts`; None: `expert_count` are trained first, and kept in memory.
        optimizer: "adam" (ours, for factors) or "sgd" (the papers', for pixels; DATM's lr_labels are then 2 to 10).
        lr: None: 0.02 with adam, 0.1 where that run is short, the papers' 100 or 1000 with sgd.
    """

    published: Published = "mtt"
    inner_steps: int | None = None
    expert_epochs: int | None = None
    first_latest: int | None = None
    latest: int | None = None
    batch: int | None = None
    rate: float | None = None
    lr_rate: float | None = None
    ema: float | None = None
    threshold: float | None = None
    momentum: float = 0.0
    strategy: Strategy = "natural"
    width: int = 128
    unroll: Literal["exact", "tesla"] = "exact"
    contrastive: float = 0.0
    contrastive_inner: float | None = None
    contrastive_direct: float | None = None
    contrastive_kind: Kind = "ntxent"
    temperature: float = 0.2
    start: Literal["random", "right", "clustered"] = "random"
    orthonormal_every: int = 200
    experts: str | None = None
    expert_count: int = 8
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0

    @property
    def labels(self) -> str:
        """What `--labels auto` means: MTT's are hard."""
        return "auto" if self.lr_labels else "hard"

    @property
    def inner_weight(self) -> float:
        """Of the contrastive term of the inner training."""
        return self.contrastive if self.contrastive_inner is None else self.contrastive_inner

    @property
    def direct_weight(self) -> float:
        """Of the contrastive term that moves the images directly."""
        return self.contrastive if self.contrastive_direct is None else self.contrastive_direct

    @property
    def two_views(self) -> bool:
        """Whether images are seen twice, under two augmentations."""
        return self.inner_weight > 0 or self.direct_weight > 0

    def split_seed(self, fingerprint: str, seed: int) -> int:
        """Of the split that holds out validation images: the experts', who must not have seen them, or `seed`.

        Raises SettingError for experts of other data.
        """
        if self.experts is None:
            return seed
        theirs = ExpertFolder.open(Path(self.experts)).settings
        if theirs.data != fingerprint:
            raise SettingError(
                f"the experts in {self.experts} are of data {theirs.data}, wanted {fingerprint}: train others"
            )
        return theirs.split_seed

    def usual_lr(self, ipc: int) -> float:
        """Where `lr` is None."""
        if self.optimizer == "adam":
            return 0.1 if self.published == "short" else 0.02
        return schedule(self.published, ipc, 10).lr_images

    def schedule(self, ipc: float, num_classes: int) -> Schedule:
        """The settings at `ipc` images a class, or what takes as many numbers, with those that are set here."""
        usual = schedule(self.published, ipc, num_classes)
        own = ("inner_steps", "expert_epochs", "first_latest", "latest", "batch", "rate", "ema", "threshold")
        changed = replace(usual, **{name: getattr(self, name) for name in own if getattr(self, name) is not None})
        return replace(changed, first_latest=min(changed.first_latest, changed.latest))

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """Images that an iteration passes forward: 3 for a step's gradient, and about 8 for its way back."""
        settings = self.schedule(ipc, num_classes)
        return 11 * settings.inner_steps * min(settings.batch, ipc * num_classes) * (2 if self.inner_weight else 1)

    def choose(self, real: RealImages, ipc: int, teacher: Labeller, generator: np.random.Generator) -> np.ndarray:
        """Rows of the real images that the set starts from, in class-major order."""
        if self.start == "random":
            return real.rows_at_random(ipc, generator)
        rows = right_ones(real, ipc, teacher, generator)
        return sorted_alike(real, rows) if self.start == "clustered" else rows

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> Matching:
        """Settings for the numbers that the set stores; experts come at the first step."""
        stored = sum(values.numel() for values in synthetic.factors.values())
        ipc = stored / (real.num_classes * int(np.prod(real.shape)))
        return Matching(self, self.schedule(ipc, real.num_classes), real, compute)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: Matching, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Matching]:
        """MTT's Equation 4; a loss above the threshold comes without a gradient, and the set stays as it is."""
        state.begin(synthetic, real, generator)
        if state.iteration and state.iteration % self.orthonormal_every == 0:
            _orthonormal(synthetic, state)
        state.follow(synthetic)
        state.iteration += 1
        start, target = state.pair(generator)
        images, labels = synthetic.images(), synthetic.soft_labels()
        classes = torch.from_numpy(synthetic.classes).to(images.device)
        steps = inner_steps(self, state.schedule, synthetic.count, generator, images.device)
        inner = InnerTraining(
            state.passes, images.detach(), labels.detach(), classes, steps, state.rate.value, self.momentum
        )
        weights = inner.weights(start)
        distance = (start - target).square().sum()
        value = (weights[-1] - target).square().sum() / distance
        if 0 < state.schedule.threshold < float(value):
            state.rate.lower()  # ours: at DATM's constant rate a run that starts above the threshold stays there
            return value.requires_grad_(), state
        at_end = 2 * (weights[-1] - target) / distance
        moved = inner.gradients(weights, at_end, self.direct_weight, self.unroll == "exact")
        state.rate.move(moved.rate)
        surrogate = (images * moved.images).sum() + (labels * moved.labels).sum()
        return value + self.direct_weight * moved.contrast + (surrogate - surrogate.detach()), state


MTT = TrajectoryMatching()
DATM = TrajectoryMatching("datm", lr_labels=0.02, start="right")
LSS = TrajectoryMatching("lss", lr_labels=0.02, start="clustered")
CONTRASTIVE = replace(DATM, contrastive=0.05)


def inner_steps(
    method: TrajectoryMatching, settings: Schedule, count: int, generator: np.random.Generator, device: torch.device
) -> list[Step]:
    """Batches without replacement, one shuffle of the `count` rows after another; and their augmentations."""
    size, steps = min(settings.batch, count), settings.inner_steps
    shuffles = [generator.permutation(count) for _ in range(-(-size * steps // count))]
    order = np.concatenate(shuffles)
    views, families = 2 if method.two_views else 1, siamese.STRATEGIES[method.strategy]
    return [
        Step(
            torch.from_numpy(order[n * size : (n + 1) * size]).to(device),
            tuple(siamese.draw(families, generator, size) for _ in range(views)),
        )
        for n in range(steps)
    ]


def _orthonormal(synthetic: TrainableSet, state: Matching) -> None:
    """The average is turned with the factors, so that it stays an average of like things."""
    form = synthetic.parameterization
    found = changes(form, synthetic.factors)
    if not found:
        return
    absorb(form, synthetic.factors, found)
    if state.average:
        absorb(form, state.average, found)
    if synthetic.scales:
        synthetic.fit_scales()
