"""IDM's queue of partly trained networks: each is matched on and trained on real images a little at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import RealImages
from edgedd.students import Network

START = 3


@dataclass(frozen=True)
class Training:
    """Of the queue's networks: every `interval` iterations a new one joins, and at `most` the oldest leaves; after an
    iteration `networks` of them take `steps` steps of SGD on `batch` real images, not augmented. Running accuracies
    start again every `window` iterations.
    """

    interval: int
    most: int
    networks: int
    steps: int
    batch: int
    window: int
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(eq=False)
class Member:
    """A network of the queue; `right` of the `seen` training images were predicted before the step that used them.

    `right` stays on the device: to read it after every step would make a GPU wait for each.
    """

    parameters: list[torch.Tensor]
    optimizer: torch.optim.SGD
    right: torch.Tensor | int = 0
    seen: int = 0

    @property
    def percent(self) -> float:
        """Running training accuracy in percent, 0 before any step."""
        return 100 * int(self.right) / self.seen if self.seen else 0.0


class Queue:
    """Networks, the oldest first, and the iterations gone by."""

    def __init__(self, network: Network, training: Training, compute: Compute, generator: np.random.Generator) -> None:
        self.network, self.training, self.compute = network, training, compute
        self.iteration = 0
        self._train_loss = compute.compile(_train_loss)
        self.members: list[Member] = []
        for _ in range(START):
            self._push(networks.fresh(network, generator, compute.device))

    def draw(self, generator: np.random.Generator) -> Member:
        """The network to match on in this iteration; a new one may join first."""
        if self.iteration % self.training.interval == 0:
            if len(self.members) == self.training.most:
                self.members.pop(0)
            self._push(networks.fresh(self.network, generator, self.compute.device))
        return self.members[int(generator.integers(len(self.members)))]

    def train(self, real: RealImages, generator: np.random.Generator) -> None:
        """What follows the matching: a few different networks train; the iteration ends."""
        count = min(self.training.networks, len(self.members))
        for index in generator.choice(len(self.members), count, replace=False):
            for _ in range(self.training.steps):
                self._step(self.members[index], *real.sample(self.training.batch, generator))
        self.iteration += 1
        if self.iteration % self.training.window == 0:
            for member in self.members:
                member.right = member.seen = 0

    def _step(self, member: Member, images: torch.Tensor, labels: torch.Tensor) -> None:
        with self.compute.autocast():
            loss, outputs = self._train_loss(self.network, member.parameters, images, labels)
        member.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        member.optimizer.step()
        member.right = member.right + (outputs.argmax(1) == labels).sum()
        member.seen += len(labels)

    def _push(self, parameters: list[torch.Tensor]) -> None:
        t = self.training
        leaves = [p.requires_grad_() for p in parameters]
        optimizer = torch.optim.SGD(leaves, lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay)
        self.members.append(Member(leaves, optimizer))

    def state_dict(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        members = [
            {
                "parameters": [p.detach() for p in member.parameters],
                "optimizer": member.optimizer.state_dict(),
                "right": int(member.right),
                "seen": member.seen,
            }
            for member in self.members
        ]
        return {"iteration": self.iteration, "members": members}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.iteration, self.members = state["iteration"], []
        for saved in state["members"]:
            self._push([p.to(self.compute.device).clone() for p in saved["parameters"]])
            member = self.members[-1]
            member.optimizer.load_state_dict(saved["optimizer"])
            member.right, member.seen = saved["right"], saved["seen"]


def _train_loss(
    network: Any, parameters: networks.Parameters, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = networks.logits(network, parameters, images)
    return torch.nn.functional.cross_entropy(outputs, labels), outputs
