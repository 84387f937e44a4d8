"""DC: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021), and what grew from it.

DSA: DC under Siamese augmentation (edgedd.distillation.siamese). DCC and DSAC: Lee et al., "Dataset Condensation with
Contrastive Signals" (ICML 2022), DC and DSA with one distance between gradients summed over the classes. Where the
papers start from noise (DC alone does), ours starts from real images.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation import networks, siamese
from edgedd.distillation.compute import Compute
from edgedd.distillation.contrastive import Contrast, Kind, contrasted
from edgedd.distillation.gradient_passes import Gradient, GradientPasses
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student

# Stored images a class -> image steps a network, and the network's epochs between them.
SCHEDULE = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
CONTRASTIVE_SCHEDULE = {1: (10, 5), 10: (10, 50), 50: (50, 10)}
WARM_UP_NETWORKS = 250
WARM_UP_STEPS = 10


@dataclass(frozen=True)
class GradientMatching:
    """Hyperparameters; the papers' unless said otherwise.

    The papers train on hard labels; ours start as the teacher's and stay (`labels="hard"` gives the papers').

    Attributes:
        summed: DCC's distance, after the warm-up in which the distance is DC's.
        strategy: families of the augmentation: "natural", "digits" (no mirror) or "none" (DC and DCC).
        batch_real: real images per class a step.
        width: channels of the ConvNet that the gradients are of.
        image_steps: steps of the set on a network before a fresh one; None: the paper's at the nearest ipc it lists.
        epochs: epochs that the network trains on the set between two of these; None likewise.
        network_lr, batch_train: of this training, by plain SGD.
        warm_up_networks: networks on which, in their first 10 image steps, the distance is DC's; None: a quarter of
            those that the run will see, as in the paper, and at most the paper's 250.
        contrastive: weight of a contrastive term on the set's features in that network (not the papers'; see
            edgedd.distillation.contrastive), of `contrastive_kind` at `temperature`.
        optimizer: "adam" (ours, for factors) or "sgd" (the papers', for pixels).
        lr: of cores and pixels; None: 0.05 with adam, the papers' 0.1 with sgd.
    """

    summed: bool = False
    strategy: Strategy = "none"
    batch_real: int = 256
    width: int = 128
    image_steps: int | None = None
    epochs: int | None = None
    network_lr: float = 0.01
    batch_train: int = 256
    warm_up_networks: int | None = None
    contrastive: float = 0.0
    contrastive_kind: Kind = "ntxent"
    temperature: float = 0.2
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0

    def usual_lr(self, ipc: int) -> float:
        """Where `lr` is None."""
        return 0.1 if self.optimizer == "sgd" else 0.05

    def schedule(self, ipc: int) -> tuple[int, int]:
        """Image steps a network, and its epochs between them."""
        listed = CONTRASTIVE_SCHEDULE if self.summed else SCHEDULE
        steps, epochs = listed[min(listed, key=lambda known: abs(np.log(ipc / known)))]
        return self.image_steps or steps, self.epochs or epochs

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """Images that an iteration passes forward; a backward pass counts as two more, the matching as nine."""
        steps, epochs = self.schedule(ipc)
        training = 3 * epochs * ipc * (steps - 1) / steps
        return round(num_classes * (3 * self.batch_real + 9 * ipc + training))

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "InnerNetwork":
        """A fresh network at its first image step."""
        state = InnerNetwork(self, synthetic, real, compute)
        state.refresh(generator)
        return state

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "InnerNetwork", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "InnerNetwork"]:
        """One image step, after the network has trained on the set as it is now."""
        images, labels = synthetic.images(), synthetic.soft_labels()
        state.advance(images.detach(), labels.detach(), generator)
        strategy = siamese.STRATEGIES[self.strategy]
        draws = [siamese.draw(strategy, generator) for _ in range(real.num_classes)]
        images = siamese.apply_by_class(images, draws)
        rows = [real.sample_class(c, self.batch_real, generator) for c in range(real.num_classes)]
        ranks = state.compute.ranks
        own = ranks.own(real.num_classes)
        targets = (state.real_gradient(real, rows[c], draws[c]) for c in own)
        if self.summed and not state.warming_up:
            mean = next(targets)
            for more in targets:
                torch._foreach_add_(mean, more)
            ranks.add(mean)
            torch._foreach_div_(mean, real.num_classes)
            loss = state.passes.matched(state.parameters, images, labels, mean)  # DCC's: one distance
        else:
            per_class = list(zip(images.chunk(real.num_classes), labels.chunk(real.num_classes), strict=True))
            terms = [
                state.passes.matched(state.parameters, *per_class[c], target)
                for c, target in zip(own, targets, strict=True)
            ]
            loss = ranks.size * torch.stack(terms).sum()  # DC's: one a class; the mean over ranks is the sum
        state.step += 1
        contrast = Contrast(self.contrastive_kind, self.temperature, self.contrastive)
        features = partial(state.passes.features, state.parameters)
        return loss + contrasted(contrast, features, synthetic, self.strategy, generator), state


DC = GradientMatching()
DSA = GradientMatching(strategy="natural")
DCC = GradientMatching(summed=True)
DSAC = GradientMatching(summed=True, strategy="natural")


class InnerNetwork:
    """The network whose gradients are matched: fresh, then trained on the set between image steps.

    Attributes:
        network, step: which network of the run it is (k), and its image steps so far (t), from 0.
        total: iterations of the run, told by the loop; 0 before.
    """

    def __init__(self, method: GradientMatching, synthetic: TrainableSet, real: RealImages, compute: Compute) -> None:
        self.method, self.compute = method, compute
        shape = real.shape
        self.passes = GradientPasses(student(default_student(shape, method.width), shape, real.num_classes), compute)
        self.image_steps, self.epochs = method.schedule(synthetic.stored_per_class)
        self.parameters: list[torch.Tensor] = []
        self.network, self.step, self.total = -1, 0, 0

    @property
    def warming_up(self) -> bool:
        """Whether the distance is class by class yet (k and t below their thresholds)."""
        networks_seen = self.total // self.image_steps
        wanted = self.method.warm_up_networks
        first = min(networks_seen // 4, WARM_UP_NETWORKS) if wanted is None else wanted
        return self.network < first and self.step < WARM_UP_STEPS

    def refresh(self, generator: np.random.Generator) -> None:
        """Start the next network."""
        self.parameters = networks.fresh(self.passes.network, generator, self.compute.device)
        self.network, self.step = self.network + 1, 0

    def advance(self, images: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator) -> None:
        """Between image steps: train on the set, or start afresh when all steps are taken."""
        if self.step >= self.image_steps:
            self.refresh(generator)
        elif self.step > 0:
            for _ in range(self.epochs):
                self.train_epoch(images, labels, generator)

    def real_gradient(self, real: RealImages, rows: np.ndarray, drawn: siamese.Draw) -> Gradient:
        """The gradient on real images of one class."""
        images = siamese.apply(real.normalised(rows), drawn)
        labels = F.one_hot(real.labels[torch.from_numpy(rows).to(images.device)], self.passes.network.num_classes)
        return self.passes.gradient(self.parameters, images, labels.float())

    def train_epoch(self, images: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator) -> None:
        order = generator.permutation(len(images))
        strategy = siamese.STRATEGIES[self.method.strategy]
        for start in range(0, len(order), self.method.batch_train):
            rows = torch.from_numpy(order[start : start + self.method.batch_train]).to(images.device)
            batch = siamese.apply(images[rows], siamese.draw(strategy, generator, count=len(rows)))
            gradient = self.passes.gradient(self.parameters, batch, labels[rows])
            torch._foreach_add_(self.parameters, gradient, alpha=-self.method.network_lr)

    def state_dict(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        return {"parameters": list(self.parameters), "network": self.network, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.parameters = [p.to(self.compute.device).clone() for p in state["parameters"]]
        self.network, self.step = state["network"], state["step"]
