"""What distribution matching looks at: features of one network on real images, class by class, and on the set."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from edgedd.distillation import networks, siamese
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.siamese import Strategy
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.students import Network

CPU_CHUNK = 32  # images whose activations stay near the cache, at 128 channels; more at fewer
GPU_CHUNK = 4096


class Passes:
    """Compiled feature passes, shared by all networks of one shape.

    Where they run in bfloat16, a network's weights are rounded first: real and synthetic images meet the same network,
    and only the rounding of activations, which averages out over a class, is left between them.
    """

    def __init__(self, network: Network, compute: Compute) -> None:
        self.network, self.compute = network, compute
        self.chunk = GPU_CHUNK if compute.device.type == "cuda" else max(CPU_CHUNK, CPU_CHUNK * 128 // self.channels)
        self.rounded = compute.bfloat16
        self._features = compute.compile(networks.features)
        self._blocks = compute.compile(networks.blocks)

    @property
    def channels(self) -> int:
        """Channels of the last feature map: those of the last convolution."""
        return [spec.shape[0] for spec in self.network.parameters().values() if len(spec.shape) == 4][-1]

    def constant(self, parameters: networks.Parameters) -> list[torch.Tensor]:
        """A copy of a network's parameters that no training changes, rounded as the passes will round them."""
        copies = [p.detach().clone() for p in parameters]
        return [p.bfloat16().float() for p in copies] if self.rounded else copies

    def fresh(self, generator: np.random.Generator) -> list[torch.Tensor]:
        """A new network, as `constant` gives one; a GPU draws it itself."""
        draw = networks.drawn if self.compute.device.type == "cuda" else networks.fresh
        return self.constant(draw(self.network, generator, self.compute.device))

    def features(self, parameters: networks.Parameters, images: torch.Tensor) -> torch.Tensor:
        """Images (b, C, H, W) -> the last map, flattened (b, d); differentiable in the images."""
        with self.compute.autocast():
            parts = [
                self._features(self.network, parameters, part, constant=True)
                for part in torch.split(images, self.chunk)
            ]
        return torch.cat(parts)

    def blocks(self, parameters: networks.Parameters, images: torch.Tensor) -> list[torch.Tensor]:
        """Images (b, C, H, W) -> what each block gives, flattened (b, d), the last as `features` gives it."""
        with self.compute.autocast():
            parts = [self._blocks(self.network, parameters, part) for part in torch.split(images, self.chunk)]
        return [torch.cat(block) for block in zip(*parts, strict=True)]

    def real(
        self,
        parameters: networks.Parameters,
        real: RealImages,
        count: int,
        draws: list[siamese.Draw],
        generator: np.random.Generator,
    ) -> Iterator[torch.Tensor]:
        """Features (k, count, d) of random images of each class, a few classes at a time, each class by its draw.

        The classes are this rank's own, the random numbers those of all.
        """
        at_once = max(1, self.chunk // count)
        rows = [real.sample_class(c, count, generator) for c in range(real.num_classes)]
        own = self.compute.ranks.own(real.num_classes)
        for first in range(0, len(own), at_once):
            block = own[first : first + at_once]
            chosen = np.concatenate([rows[c] for c in block])
            with torch.no_grad():
                images = siamese.apply_by_class(real.normalised(chosen), [draws[c] for c in block])
                features = self.features(parameters, images)
            yield features.reshape(len(block), count, -1)

    def observe(
        self,
        parameters: networks.Parameters,
        synthetic: TrainableSet,
        real: RealImages,
        batch: "RealBatch",
        generator: np.random.Generator,
    ) -> "Observed":
        """Both sides of one step, under one siamese draw a class (a family each, as the paper's code does)."""
        strategy = siamese.STRATEGIES[batch.strategy]
        draws = [siamese.draw(strategy, generator) for _ in range(real.num_classes)]
        means, covariances = [], []
        for features in self.real(parameters, real, batch.per_class, draws, generator):
            means.append(features.mean(1))
            if batch.covariances:
                covariances.append(class_covariances(features, self.channels))
        images, ranks = siamese.apply_by_class(synthetic.images(), draws), self.compute.ranks
        return Observed(
            ranks.gathered(torch.cat(means), real.num_classes),
            ranks.gathered(torch.cat(covariances), real.num_classes) if covariances else torch.empty(0),
            images,
            by_class(self.features(parameters, images), real.num_classes),
        )


@dataclass(frozen=True)
class RealBatch:
    """Real images of a step: how many a class, which augmentation, and whether covariances are wanted too."""

    per_class: int
    strategy: Strategy
    covariances: bool = False


@dataclass(frozen=True)
class Observed:
    """K classes of m synthetic images each, d features of c channels.

    means: (K, d) and covariances: (K, c, c), or none (0,), of real features.
    images: (K m, C, H, W) synthetic, augmented, and features: (K, m, d) of these.
    """

    means: torch.Tensor
    covariances: torch.Tensor
    images: torch.Tensor
    features: torch.Tensor

    def mean_distance(self) -> torch.Tensor:
        """DM's Equation 5: sum over classes of the squared distance between mean features."""
        return (self.features.mean(1) - self.means).square().sum()


def class_covariances(features: torch.Tensor, channels: int) -> torch.Tensor:
    """Features (K, m, d) of maps (channels, d / channels) -> (K, channels, channels).

    The local covariance of IID: maps are centred over the class's images position by position; products are summed
    over positions and averaged over images.
    """
    num_classes, count = features.shape[:2]
    maps = (features - features.mean(1, keepdim=True)).reshape(num_classes, count, channels, -1)
    flat = maps.transpose(1, 2).flatten(2)
    products: torch.Tensor = flat @ flat.transpose(1, 2)
    return products / count


def by_class(features: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Features (K m, d) in class-major order -> (K, m, d)."""
    return features.reshape(num_classes, -1, features.shape[1])
