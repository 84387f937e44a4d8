"""How the papers test a set: the evaluation of the published code of DC, DSA and DM (Zhao et al. 2021), in torch.

DSA, DM, MTT and most papers since use it, so that numbers beside theirs need it. Float32 throughout, and the network
after the last step. That code trains one epoch more and lowers the rate two epochs later.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from edgedd.distillation import networks, siamese
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import normalise
from edgedd.distillation.siamese import Strategy
from edgedd.students import Network
from edgedd.synthetic_set import SyntheticSet

OnEpoch = Callable[[int], None]
TEST_BATCH = 500


@dataclass(frozen=True)
class PublishedRecipe:
    """SGD on every image once an epoch, the last batch as small as it comes.

    Attributes:
        epochs: at a tenth of the rate, and with fresh momentum, from the middle on.
        strategy: families of the DSA augmentation: one is drawn a batch, its parameters an image.
    """

    epochs: int
    strategy: Strategy
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256

    def steps(self, count: int) -> int:
        """Optimizer steps on `count` images."""
        return self.epochs * -(-count // self.batch_size)


PUBLISHED = {
    "vico": PublishedRecipe(1000, "natural"),
    "vico-digits": PublishedRecipe(1000, "digits"),
    "vico-plain": PublishedRecipe(300, "none"),
}


def published(name: str, epochs: int | None = None) -> PublishedRecipe:
    """One of PUBLISHED, with other `epochs` where they are given."""
    recipe = PUBLISHED[name]
    return recipe if epochs is None else replace(recipe, epochs=epochs)


class Trained(NamedTuple):
    """A network's parameters and its batch norms' running statistics, in the network's order."""

    parameters: list[torch.Tensor]
    buffers: list[torch.Tensor]


class PublishedEvaluation:
    """Trainings of one student on one set; passes are compiled once, where that pays for `trainings` of them."""

    def __init__(
        self, synthetic: SyntheticSet, network: Network, recipe: PublishedRecipe, device: str, trainings: int = 1
    ) -> None:
        work = 6.0 * network.multiply_adds * synthetic.count * recipe.epochs * trainings
        self.compute = Compute.for_work(device, work)
        self.network, self.recipe = network, recipe
        self.images = self.compute.tensor(synthetic.images(slice(None)))
        self.labels = self.compute.tensor(synthetic.soft_labels(slice(None)))
        self.mean, self.std = synthetic.tensors["mean"], synthetic.tensors["std"]
        self._loss = self.compute.compile(networks.training_loss, training=True)

    def fit(self, generator: np.random.Generator, on_epoch: OnEpoch | None = None) -> Trained:
        """A fresh network, trained; `on_epoch(epoch)` counts from 1."""
        parameters = [p.requires_grad_() for p in networks.fresh(self.network, generator, self.compute.device)]
        buffers = networks.started(self.network.buffers(), generator, self.compute.device)
        optimizer = self._optimizer(parameters, self.recipe.lr)
        for epoch in range(self.recipe.epochs):
            if epoch == self.recipe.epochs // 2:
                optimizer = self._optimizer(parameters, 0.1 * self.recipe.lr)
            order = torch.from_numpy(generator.permutation(len(self.images))).to(self.compute.device)
            for rows in torch.split(order, self.recipe.batch_size):
                drawn = siamese.draw(siamese.STRATEGIES[self.recipe.strategy], generator, count=len(rows))
                images = siamese.apply(self.images[rows], drawn)
                optimizer.zero_grad()
                self._loss(self.network, parameters, images, self.labels[rows], buffers).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if on_epoch:
                on_epoch(epoch + 1)
        return Trained([p.detach() for p in parameters], buffers)

    def accuracy(self, trained: Trained, images: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of uint8 images (N, C, H, W) whose class is predicted."""
        right = 0
        for start in range(0, len(images), TEST_BATCH):
            part = normalise(self.compute.tensor(images[start : start + TEST_BATCH]), self.mean, self.std)
            with torch.no_grad():
                logits = networks.logits(self.network, trained.parameters, part, trained.buffers)
            right += int((logits.argmax(1).cpu().numpy() == labels[start : start + TEST_BATCH]).sum())
        return right / len(images)

    def _optimizer(self, parameters: list[torch.Tensor], lr: float) -> torch.optim.SGD:
        recipe = self.recipe
        return torch.optim.SGD(parameters, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
