"""FRePo: Zhou, Nezhadarya and Ba, "Dataset Distillation using Neural Feature Regression" (NeurIPS 2022).

The inner problem is solved in closed form for the last layer, on features of networks that are themselves trained on
the synthetic set, a step at a time; nothing is unrolled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation import networks
from edgedd.distillation.augment import augment
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student


@dataclass(frozen=True)
class FRePo:
    """Hyperparameters; the paper's unless said otherwise.

    Attributes:
        pool: networks in the pool (m in the paper).
        max_age: steps after which a pool network starts afresh; ages start staggered.
        batch_real: real images a step.
        batch_synthetic: images of the set a step, as many of each class, drawn afresh; a smaller set is used whole.
            The paper uses the whole set; the solve from a random part costs less, and what it asks of the part is
            asked of every part.
        batch_train: synthetic images of a pool network's own training step.
        student_lr: Adam learning rate of the pool networks.
        ridge: l of Equation 4; the regulariser is l * trace(K) / n (paper: 1e-6). On CIFAR-10 students of 26 images
            a class gained 2 points from 0.003 to 0.03, of 60 a class (`auto`) 1 point from 0.1 to 0.3, none beyond.
        width: channels of the pool's ConvNet (paper: 128, doubling; ours: the student's).
        augmentation: of synthetic and real images, drawn separately for each; None: mirror and shift where the
            validation split says that they help.
    """

    pool: int = 10
    max_age: int = 100
    batch_real: int = 512
    batch_synthetic: int = 300
    batch_train: int = 128
    student_lr: float = 1e-3
    ridge: float = 0.03
    width: int = 64
    lr: float = 0.05
    lr_mappers: float = 1e-3
    lr_labels: float = 0.05
    augmentation: Augmentation | None = None

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "Pool":
        """A pool of fresh networks with staggered ages."""
        pool = Pool(self, real, compute)
        for slot in range(self.pool):
            pool.refresh(slot, generator)
            pool.ages[slot] = slot * self.max_age // self.pool
        return pool

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "Pool", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "Pool"]:
        """Equation 6: error of kernel ridge regression from the synthetic set on a real batch."""
        slot = int(generator.integers(self.pool))
        rows = self.rows(synthetic.count, real.num_classes, generator)
        images, labels = synthetic.images(rows), synthetic.soft_labels()[rows]
        state.train(slot, images.detach(), labels.detach(), generator)
        parameters = state.networks[slot]
        real_images, real_labels = real.sample(self.batch_real, generator)
        own = slice(state.compute.ranks.rank, None, state.compute.ranks.size)
        with torch.no_grad():
            real_features = state.features(parameters, state.augment(real_images, generator)[own])
        features = state.features(parameters, state.augment(images, generator))
        centred = labels - 1 / real.num_classes
        target = torch.nn.functional.one_hot(real_labels, real.num_classes).float() - 1 / real.num_classes
        share = state.compute.ranks.size * len(real_features) / len(target)
        return share * regression_loss(features, centred, real_features, target[own], self.ridge), state

    def rows(self, count: int, num_classes: int, generator: np.random.Generator) -> np.ndarray | slice:
        """The rows of a set of `count` images in class-major order that a step uses."""
        per_class = max(1, self.batch_synthetic // num_classes)
        if per_class * num_classes >= count:
            return slice(None)
        by_class = np.arange(count).reshape(num_classes, -1)
        return generator.permuted(by_class, axis=1)[:, :per_class].reshape(-1)


def regression_loss(
    features: torch.Tensor, labels: torch.Tensor, real_features: torch.Tensor, target: torch.Tensor, ridge: float
) -> torch.Tensor:
    """(1/2b) || Y_B - F_B F_S^T (F_S F_S^T + lambda I)^-1 Y ||^2 with lambda = ridge * trace(F_S F_S^T) / n.

    features (n, d) and labels (n, K) of the synthetic set; real_features (b, d) and target (b, K); labels centred.
    """
    kernel = features @ features.T
    damping = ridge * kernel.diagonal().mean()
    identity = torch.eye(len(kernel), device=kernel.device)
    solution = torch.linalg.solve(kernel + damping * identity, labels)
    predicted = real_features @ (features.T @ solution)
    error: torch.Tensor = 0.5 * (target - predicted).square().sum(1).mean()
    return error


class Pool:
    """Networks trained on the synthetic set, one step each time they are used."""

    def __init__(self, method: FRePo, real: RealImages, compute: Compute) -> None:
        self.method = method
        self.compute = compute
        self.network = student(default_student(real.shape, method.width), real.shape, real.num_classes)
        self.networks: list[list[torch.Tensor]] = [[] for _ in range(method.pool)]
        self.optimizers: list[torch.optim.Adam] = [None] * method.pool  # type: ignore[list-item]
        self.ages = [0] * method.pool
        self._features = compute.compile(networks.features)
        self._train_loss = compute.compile(networks.training_loss)

    def features(self, parameters: networks.Parameters, images: torch.Tensor) -> torch.Tensor:
        """Features (b, d) of a network taken as constant."""
        with self.compute.autocast():
            detached = [p.detach() for p in parameters]
            features: torch.Tensor = self._features(self.network, detached, images, constant=True)
            return features

    def augment(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Images (b, C, H, W) as the networks see them."""
        return augment(images, self.method.augmentation or Augmentation(), generator)

    def refresh(self, slot: int, generator: np.random.Generator) -> None:
        """Put a fresh network into a slot."""
        parameters = networks.fresh(self.network, generator, self.compute.device)
        self.networks[slot] = [p.requires_grad_() for p in parameters]
        self.optimizers[slot] = torch.optim.Adam(self.networks[slot], lr=self.method.student_lr)
        self.ages[slot] = 0

    def train(self, slot: int, images: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator) -> None:
        """One Adam step of a network on a batch of the synthetic set; too old a network starts afresh instead."""
        if self.ages[slot] >= self.method.max_age:
            self.refresh(slot, generator)
            return
        count = min(self.method.batch_train, len(images))
        rows = torch.from_numpy(generator.choice(len(images), count, replace=False)).to(images.device)
        batch = self.augment(images[rows], generator)
        with self.compute.autocast():
            loss = self._train_loss(self.network, self.networks[slot], batch, labels[rows])
        self.optimizers[slot].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[slot].step()
        self.ages[slot] += 1

    def state_dict(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        return {
            "networks": [[p.detach() for p in net] for net in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ages": list(self.ages),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for slot, saved in enumerate(state["networks"]):
            self.networks[slot] = [p.to(self.compute.device).clone().requires_grad_() for p in saved]
            self.optimizers[slot] = torch.optim.Adam(self.networks[slot], lr=self.method.student_lr)
            self.optimizers[slot].load_state_dict(state["optimizers"][slot])
        self.ages = list(state["ages"])
