"""DM: Zhao and Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edgedd.augmentation import Augmentation, draw
from edgedd.distillation import networks
from edgedd.distillation.augment import apply
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import default_student, student


@dataclass(frozen=True)
class DM:
    """Hyperparameters; the paper's unless said otherwise.

    Attributes:
        batch_real: real images per class a step (paper: 256).
        width: channels of the fresh ConvNet (paper: 128).
        lr: Adam learning rate of cores and pixels (ours; the paper uses SGD at 1 on pixels).
        augmentation: siamese: one draw a class, applied to all its real and synthetic images alike.
    """

    batch_real: int = 64
    width: int = 64
    lr: float = 0.03
    lr_mappers: float = 1e-3
    lr_labels: float = 0.0
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(flip=0.5, shift=3, scale=0.2, rotate=15, cutout=0.5, colour=1)
    )

    def init(
        self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator
    ) -> "FreshNetworks":
        """Nothing is kept between steps but the compiled pass."""
        return FreshNetworks(self, real, compute)

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: "FreshNetworks", generator: np.random.Generator
    ) -> tuple[torch.Tensor, "FreshNetworks"]:
        """Equation 5: sum over classes of the squared distance between mean features, on a fresh network."""
        parameters = networks.fresh(state.network, generator, state.compute.device)
        classes = synthetic.classes
        images = synthetic.images()
        rows = [real.sample_class(c, self.batch_real, generator) for c in range(real.num_classes)]
        real_images = real.normalised(np.concatenate(rows))
        height, width = images.shape[2:]
        drawn = draw(self.augmentation, real.num_classes, height, width, generator)
        real_classes = np.repeat(np.arange(real.num_classes), self.batch_real)
        ours = apply(images, self.augmentation, type(drawn)(*(values[classes] for values in drawn)))
        theirs = apply(real_images, self.augmentation, type(drawn)(*(values[real_classes] for values in drawn)))
        with torch.no_grad():
            target = class_means(state.features(parameters, theirs), real.num_classes)
        means = class_means(state.features(parameters, ours), real.num_classes)
        return (means - target).square().sum(), state


def class_means(features: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Features (K m, d) in class-major order -> mean of each class (K, d)."""
    return features.reshape(num_classes, -1, features.shape[1]).mean(1)


class FreshNetworks:
    """A compiled feature pass of networks that live for one step."""

    def __init__(self, method: DM, real: RealImages, compute: Compute) -> None:
        self.compute = compute
        self.network = student(default_student(real.shape, method.width), real.shape, real.num_classes)
        self._features = compute.compile(networks.features)

    def features(self, parameters: networks.Parameters, images: torch.Tensor) -> torch.Tensor:
        """Features (b, d)."""
        with self.compute.autocast():
            return self._features(self.network, parameters, images)

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
