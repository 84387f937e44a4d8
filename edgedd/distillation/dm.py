"""DM: Zhao and Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.distillation.contrastive import Contrast, Kind, contrasted
from edgedd.distillation.matching import Observed, Passes, RealBatch
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student


@dataclass(frozen=True)
class DM:
    """Hyperparameters; the paper's unless said otherwise.

    The paper trains on hard labels; ours start as the teacher's and stay (`labels="hard"` gives the paper's).

    Attributes:
        batch_real: real images per class a step; a smaller class repeats some.
        width: channels of the ConvNet, of which every iteration draws a fresh one.
        strategy: families of the siamese augmentation: "natural", "digits" (no mirror) or "none".
        optimizer: "adam" (ours, for factors) or "sgd" (the paper's, for pixels).
        contrastive: weight of a contrastive term on the set's features (not the paper's; see
            edgedd.distillation.contrastive), of `contrastive_kind` at `temperature`.
        lr: of cores and pixels; None: 0.03 with adam, the paper's 1 with sgd, from 100 images a class on 10.
    """

    batch_real: int = 256
    width: int = 128
    strategy: Strategy = "natural"
    contrastive: float = 0.0
    contrastive_kind: Kind = "ntxent"
    temperature: float = 0.2
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0

    def usual_lr(self, ipc: int) -> float:
        """Where `lr` is None."""
        if self.optimizer == "adam":
            return 0.03
        return 1.0 if ipc < 100 else 10.0

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """Images that an iteration passes forward; a backward pass counts as two more."""
        return num_classes * (self.batch_real + 3 * ipc)

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "FreshNetworks":
        """Nothing is kept between steps but the compiled pass."""
        return FreshNetworks(self, real, compute)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "FreshNetworks", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "FreshNetworks"]:
        """Equation 5, on a fresh network."""
        loss, _ = state.observed_loss(synthetic, real, generator)
        return loss, state


class FreshNetworks:
    """Networks that live for one step, by one compiled pass."""

    def __init__(self, method: DM, real: RealImages, compute: Compute) -> None:
        self.passes = Passes(student(default_student(real.shape, method.width), real.shape, real.num_classes), compute)
        self.batch = RealBatch(method.batch_real, method.strategy)
        self.contrast = Contrast(method.contrastive_kind, method.temperature, method.contrastive)

    def observed_loss(
        self, synthetic: TrainableSet, real: RealImages, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Observed]:
        """The loss on a fresh network, and what it saw."""
        parameters = self.passes.fresh(generator)
        observed = self.passes.observe(parameters, synthetic, real, self.batch, generator)
        loss, features = observed.mean_distance(), partial(self.passes.features, parameters)
        return loss + contrasted(self.contrast, features, synthetic, self.batch.strategy, generator), observed

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
