"""IID: Deng et al., "Exploiting Inter-sample and Inter-feature Relations in Dataset Distillation" (CVPR 2024).

Two terms on top of DM or IDM: covariance matching of the last feature map, and class centralisation in the features of
trained networks. At one image a class both are zero: a sample is its own mean. What is here is the released code.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from edgedd.distillation import dm, idm
from edgedd.distillation.compute import Compute
from edgedd.distillation.matching import Observed, RealBatch, by_class, class_covariances
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.stopped_networks import StoppedNetworks
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student

WEIGHTS = {"dm": (0.01, 0.05), "idm": (0.03, 0.01)}  # of covariance matching and class centralisation
SHARPNESS = 0.02


@dataclass(frozen=True)
class IID:
    """Hyperparameters; the released code's for CIFAR-10 unless said otherwise. Fields not listed are DM's and IDM's.

    Attributes:
        base: "dm" or "idm", whose distance, networks and steps it takes (and IDM's `formation`, where none is asked).
        covariance_weight: of covariance matching; None: 0.01 on dm, 0.03 on idm.
        centralisation_weight: of class centralisation; None: 0.05 on dm, 0.01 on idm. Too much of it makes the images
            of a class alike.
        centralisation: "squared", sum of d^2 (the released form), or "exponential", sum of max(0, exp(0.02 d^2) -
            beta) (the form of the paper, as a comment of the code has it), with d the distance to the class's mean.
        beta: threshold of the exponential form; at 1 an image at its class's mean costs nothing. The paper's values
            were not at hand.
        pool: trained networks that class centralisation draws from (released: 1000).
        pool_epochs: their epochs on the real images (released: 40).
        pool_network: "convnet" of `width`, whose last map is averaged over positions (ours), or "resnet18-in" (theirs).
    """

    base: Literal["dm", "idm"] = "dm"
    covariance_weight: float | None = None
    centralisation_weight: float | None = None
    centralisation: Literal["squared", "exponential"] = "squared"
    beta: float = 1.0
    pool: int = 3
    pool_epochs: int = 2
    pool_network: Literal["convnet", "resnet18-in"] = "convnet"
    batch_real: int | None = None
    width: int = 128
    strategy: Strategy = "natural"
    ce_weight: float | None = None
    queue: int = 100
    interval: int | None = None
    train_networks: int = 2
    train_steps: int | None = None
    train_batch: int = 256
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0

    @property
    def steps_per_class(self) -> bool:
        """As IDM's code does; DM's steps once for all classes."""
        return self.base == "idm"

    @property
    def parameterization(self) -> str | None:
        """The base's own choice where none is asked for."""
        return idm.IDM.parameterization if self.base == "idm" else None

    @property
    def on(self) -> dm.DM | idm.IDM:
        """The base with the settings that it shares."""
        common: dict[str, Any] = {"width": self.width, "strategy": self.strategy, "optimizer": self.optimizer}
        if self.base == "dm":
            return dm.DM(batch_real=self.batch_real or 256, **common)
        for name in ("batch_real", "ce_weight", "queue", "interval", "train_networks", "train_steps", "train_batch"):
            common[name] = getattr(self, name)
        return idm.IDM(**common)

    @property
    def weights(self) -> tuple[float, float]:
        """Of covariance matching and of class centralisation."""
        given, usual = (self.covariance_weight, self.centralisation_weight), WEIGHTS[self.base]
        covariance, centralisation = (u if g is None else g for g, u in zip(given, usual, strict=True))
        return covariance, centralisation

    def usual_lr(self, ipc: int) -> float:
        """The base's."""
        return self.on.usual_lr(ipc)

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """The base's, and the synthetic images through a network of the pool."""
        return self.on.image_passes(ipc, num_classes) + 3 * ipc * num_classes

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "BaseAndPool":
        """The base's state; the pool is trained at the first step."""
        return BaseAndPool(self, synthetic, real, compute, generator)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "BaseAndPool", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "BaseAndPool"]:
        """The base's loss + covariance_weight * L_CM + centralisation_weight * L_CC."""
        stopped = state.pool.draw(real, generator)
        loss, observed = state.base.observed_loss(synthetic, real, generator)
        channels = state.base.passes.channels
        covariance, centralisation = self.weights
        loss = loss + covariance * covariance_distance(observed, channels)
        features = by_class(state.pool.pooled(stopped, observed.images), real.num_classes)
        beta = self.beta if self.centralisation == "exponential" else None
        return loss + centralisation * class_centralisation(features, beta), state


def covariance_distance(observed: Observed, channels: int) -> torch.Tensor:
    """L_CM: sum over classes of || Sigma(real) - Sigma(synthetic) ||_F^2, local covariances of the last map."""
    ours = class_covariances(observed.features, channels)
    return (observed.covariances - ours).square().sum()


def class_centralisation(features: torch.Tensor, beta: float | None = None) -> torch.Tensor:
    """L_CC of features (K, m, d): sum of d^2, or with a threshold of max(0, exp(0.02 d^2) - beta)."""
    squared = (features - features.mean(1, keepdim=True)).square().sum(2)
    if beta is None:
        return squared.sum()
    return (torch.exp(SHARPNESS * squared) - beta).clamp_min(0).sum()


class BaseAndPool:
    """The base's networks and the pool of trained ones."""

    def __init__(
        self,
        method: IID,
        synthetic: TrainableSet,
        real: RealImages,
        compute: Compute,
        generator: np.random.Generator,
    ) -> None:
        self.base = method.on.init(synthetic, real, compute, generator)
        theirs = method.pool_network != "convnet"
        name = method.pool_network if theirs else default_student(real.shape, method.width)
        trained = student(name, real.shape, real.num_classes)
        self.pool = StoppedNetworks(trained, method.pool, method.pool_epochs, compute)
        self.base.batch = RealBatch(self.base.batch.per_class, self.base.batch.strategy, covariances=True)

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {"base": self.base.state_dict(), "pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.base.load_state_dict(state["base"])
        self.pool.load_state_dict(state["pool"])
