"""A few early-stopped networks on the real images, in memory: IID's pool."""

from typing import Any

import numpy as np
import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.matching import Passes
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.training import Trainer
from edgedd.recipe import Recipe
from edgedd.students import Network


class StoppedNetworks:
    """Trained when they are first asked for, so that a resumed run takes them from its checkpoint instead."""

    def __init__(self, network: Network, count: int, epochs: int, compute: Compute) -> None:
        self.count, self.epochs = count, epochs
        self.passes, self.compute = Passes(network, compute), compute
        self.networks: list[list[torch.Tensor]] = []

    def draw(self, real: RealImages, generator: np.random.Generator) -> list[torch.Tensor]:
        """Parameters of one of them, at random."""
        if not self.networks:
            trainer = Trainer(self.passes.network, self.compute)
            trained = [self._trained(trainer, real, generator) for _ in range(self.count)]
            self.networks = [self.passes.constant(parameters) for parameters in trained]
        return self.networks[int(generator.integers(self.count))]

    def pooled(self, parameters: networks.Parameters, images: torch.Tensor) -> torch.Tensor:
        """Images (b, C, H, W) -> features averaged over positions (b, channels); differentiable in the images."""
        features = self.passes.features(parameters, images)
        return features.reshape(len(features), self.passes.channels, -1).mean(2)

    def _trained(self, trainer: Trainer, real: RealImages, generator: np.random.Generator) -> list[torch.Tensor]:
        """The published momentum, decay and batch without augmentation; five times its rate, as epochs are few."""
        steps = max(1, self.epochs * len(real.labels) // 256)
        recipe = Recipe(student_lr=0.05, momentum=0.9, weight_decay=5e-4, steps=steps, batch_size=256)
        return trainer.fit(real.sampler(generator), recipe, generator)

    def state_dict(self) -> dict[str, Any]:
        """The networks, which no longer change."""
        return {"networks": self.networks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.networks = [[p.to(self.compute.device) for p in parameters] for parameters in state["networks"]]
