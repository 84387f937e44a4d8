"""IDM: Zhao, Li, Qin and Yu, "Improved Distribution Matching for Dataset Condensation" (CVPR 2023).

DM on partly trained networks, with a class term. Its third part, several images in each stored one, is the
parameterization `formation`, which is this method's own choice where none is asked for. Defaults that depend on the
images per class count stored images, as the paper does: `formation` 2 at its IPC 10 decodes to 40.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.matching import Observed, Passes, RealBatch
from edgedd.distillation.network_queue import Queue, Training
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student


@dataclass(frozen=True)
class IDM:
    """Hyperparameters; the published commands' unless said otherwise.

    The paper's labels are hard; ours start as the teacher's and stay (`labels="hard"` gives the paper's).

    Attributes:
        batch_real: real images per class a step; None: 5000 at one stored image a class, else 256.
        width: channels of the queue's ConvNets.
        strategy: families of the siamese augmentation: "natural", "digits" (no mirror) or "none".
        ce_weight: of the class term, times a network's accuracy in percent; None: 0.5 or 0.1 (see `usual_ce_weight`).
        queue: most networks in the queue.
        interval: iterations between new networks; None: 5 at one stored image a class, else 30.
        train_networks, train_steps, train_batch: training that follows an iteration; steps None: 10, or 50.
        accuracy_window: iterations after which running accuracies start again; None: 100, or 500 from IPC 50 on.
        optimizer: "adam" (ours, for factors) or "sgd" (the paper's, for pixels; it steps after every class).
        lr: of cores and pixels; None: 0.03 with adam, the paper's 0.2 with sgd.
    """

    batch_real: int | None = None
    width: int = 128
    strategy: Strategy = "natural"
    ce_weight: float | None = None
    queue: int = 100
    interval: int | None = None
    train_networks: int = 2
    train_steps: int | None = None
    train_batch: int = 256
    accuracy_window: int | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0
    steps_per_class: ClassVar[bool] = True
    parameterization: ClassVar[str] = "formation"

    def usual_lr(self, ipc: int) -> float:
        """Where `lr` is None."""
        return 0.03 if self.optimizer == "adam" else 0.2

    def image_passes(self, ipc: int, num_classes: int) -> int:
        """Images that an iteration passes forward; a backward pass counts as two more."""
        trained = self.train_networks * self.training(ipc, num_classes).steps * self.train_batch
        return num_classes * (self.real_per_class(ipc) + 3 * ipc) + 3 * trained

    def real_per_class(self, ipc: int) -> int:
        """`batch_real`, or the paper's."""
        return self.batch_real or (5000 if ipc == 1 else 256)

    def training(self, ipc: int, num_classes: int) -> Training:
        """Of the queue; 50 steps for CIFAR-100's number of classes at IPC 10 and Tiny ImageNet's at IPC 50."""
        longer = (100 <= num_classes < 200 and 10 <= ipc < 50) or (num_classes >= 200 and ipc >= 50)
        return Training(
            interval=self.interval or (5 if ipc == 1 else 30),
            most=self.queue,
            networks=self.train_networks,
            steps=self.train_steps or (50 if longer else 10),
            batch=self.train_batch,
            window=self.accuracy_window or (100 if ipc < 50 else 500),
        )

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "QueuedNetworks":
        """The queue with its first networks."""
        return QueuedNetworks(self, synthetic, real, compute, generator)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "QueuedNetworks", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "QueuedNetworks"]:
        """On a network of the queue: DM's distance + ce_weight * its accuracy in percent * the class term."""
        loss, _ = state.observed_loss(synthetic, real, generator)
        return loss, state


def usual_ce_weight(ipc: int, num_classes: int) -> float:
    """The published commands': 0.5; CIFAR-10's IPC 50 and CIFAR-100's 10 and 50: 0.1; Tiny ImageNet's 50: 0.8."""
    if num_classes >= 200:
        return 0.5 if ipc < 50 else 0.8
    return 0.1 if ipc >= (10 if num_classes >= 100 else 50) else 0.5


def class_term(observed: Observed, parameters: networks.Parameters, labels: torch.Tensor) -> torch.Tensor:
    """Sum over classes of the mean cross-entropy of a class's augmented images against their soft labels (n, K)."""
    outputs = F.linear(observed.features.flatten(0, 1), parameters[-2], parameters[-1])
    return len(observed.features) * networks.soft_cross_entropy(outputs, labels)


class QueuedNetworks:
    """The queue, and the settings that the set's size gives."""

    def __init__(
        self,
        method: IDM,
        synthetic: TrainableSet,
        real: RealImages,
        compute: Compute,
        generator: np.random.Generator,
    ) -> None:
        ipc, num_classes = synthetic.stored_per_class, real.num_classes
        network = student(default_student(real.shape, method.width), real.shape, num_classes)
        self.passes = Passes(network, compute)
        self.queue = Queue(network, method.training(ipc, num_classes), compute, generator)
        self.batch = RealBatch(method.real_per_class(ipc), method.strategy)
        usual = usual_ce_weight(ipc, num_classes)
        self.ce_weight = usual if method.ce_weight is None else method.ce_weight

    def observed_loss(
        self, synthetic: TrainableSet, real: RealImages, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Observed]:
        """The loss on a network of the queue, and what it saw; then the queue trains."""
        member = self.queue.draw(generator)
        parameters = self.passes.constant(member.parameters)
        observed = self.passes.observe(parameters, synthetic, real, self.batch, generator)
        weight = self.ce_weight * member.percent
        loss = observed.mean_distance() + weight * class_term(observed, parameters, synthetic.soft_labels())
        self.queue.train(real, generator)
        return loss, observed

    def state_dict(self) -> dict[str, Any]:
        """The queue's."""
        return self.queue.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.queue.load_state_dict(state)
