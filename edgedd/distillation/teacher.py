"""An early-stopped teacher on the real images, and the labels it gives the synthetic set to start from."""

from functools import cached_property

import numpy as np
import torch

from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import OnStep, Progress
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import light_augmentations
from edgedd.distillation.training import Trainer, early_stopped
from edgedd.students import default_student, student

TEMPERATURE = 2.0
WIDTH = 32
HARD_LOGIT = 20.0


class Teacher:
    """The teacher of a run, trained when it is first asked: labels that stay hard need none.

    `count` networks may label together, by the mean of their predictions; features are the first one's.
    """

    def __init__(
        self,
        real: RealImages,
        options: Options,
        compute: Compute,
        on_step: OnStep | None = None,
        count: int = 1,
    ) -> None:
        self.real, self.options, self.compute, self.on_step, self.count = real, options, compute, on_step, count

    @cached_property
    def trainer(self) -> Trainer:
        """Passes of its ConvNet."""
        shape, num_classes = self.real.shape, self.real.num_classes
        return Trainer(student(default_student(shape, WIDTH), shape, num_classes), self.compute)

    @cached_property
    def snapshots(self) -> list[list[torch.Tensor]]:
        """Of the first network, at the AGES of its training."""
        return self._trained([self.options.seed, 0])

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Of the first network, trained."""
        return self.snapshots[-1]

    @cached_property
    def others(self) -> list[list[torch.Tensor]]:
        """Of the other networks, trained."""
        return [self._trained([self.options.seed, 0, number])[-1] for number in range(1, self.count)]

    def _trained(self, seed: list[int]) -> list[list[torch.Tensor]]:
        generator, minutes = np.random.default_rng(seed), self.options.minutes
        return train_teacher(self.trainer, self.real, generator, self.on_step, minutes)

    def features(self, images: torch.Tensor, batch: int = 250) -> torch.Tensor:
        """Normalised images (b, C, H, W) -> features (b, d), float32."""
        parameters = self.parameters
        with torch.no_grad():
            parts = [networks.features(self.trainer.network, parameters, x) for x in torch.split(images, batch)]
        return torch.cat(parts)

    def start_logits(self, images: torch.Tensor) -> np.ndarray:
        """Label logits (n, K) for normalised `images` (n, C, H, W) in class-major order.

        Hard labels are one-hot; otherwise the teacher's prediction at temperature 2, for the images as they are before
        storage.
        """
        count, num_classes = len(images), self.real.num_classes
        if self.options.labels == "hard":
            return HARD_LOGIT * np.eye(num_classes, dtype=np.float32)[np.arange(count) * num_classes // count]
        outputs = [self.trainer.logits(network, images) for network in (self.parameters, *self.others)]
        return networks.mean_prediction(outputs, TEMPERATURE).cpu().numpy()


def train_teacher(
    trainer: Trainer,
    real: RealImages,
    generator: np.random.Generator,
    on_step: OnStep | None = None,
    minutes: float | None = None,
) -> list[list[torch.Tensor]]:
    """A network trained as `early_stopped` says, under shifts: as it is at the AGES of its training."""
    recipe = early_stopped(len(real.labels), light_augmentations(*real.shape[1:])[0], minutes)

    def report(step: int) -> None:
        if on_step:
            on_step(Progress("teacher", step + 1, recipe.steps, None))

    return trainer.snapshots(real.sampler(generator), recipe, generator, report)
