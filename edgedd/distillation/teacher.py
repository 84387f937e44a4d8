"""An early-stopped teacher on the real images, and the labels it gives the synthetic set to start from."""

from functools import cached_property

import numpy as np
import torch

from edgedd.distillation import networks
from edgedd.distillation.compiled_layers import channels_innermost
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import OnStep, Progress
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import light_augmentations
from edgedd.distillation.training import MOST_STEPS, Trainer, early_stopped
from edgedd.recipe import Recipe
from edgedd.students import default_student, student

TEMPERATURE = 2.0
WIDTH = 32
HARD_LOGIT = 20.0
TRAINING = 0.25  # of the minutes given, for all networks that train on the real images


class Teacher:
    """The teacher of a run, trained when it is first asked: labels that stay hard need none.

    `count` networks may label together, by the mean of their predictions; features are the first one's. Where minutes
    are given, it shares the time for training with networks of its kind: `sharing` in all.
    """

    def __init__(
        self,
        real: RealImages,
        options: Options,
        compute: Compute,
        on_step: OnStep | None = None,
        count: int = 1,
        *,
        sharing: int = 1,
    ) -> None:
        self.real, self.options, self.compute, self.on_step, self.count = real, options, compute, on_step, count
        self.sharing = sharing

    @cached_property
    def trainer(self) -> Trainer:
        """Passes of its ConvNet."""
        shape, num_classes = self.real.shape, self.real.num_classes
        return Trainer(student(default_student(shape, WIDTH), shape, num_classes), self.compute)

    @cached_property
    def most_steps(self) -> int:
        """Of a network's training; where minutes are given, what TRAINING of them has time for on this machine."""
        if self.options.minutes is None:
            return MOST_STEPS
        seconds = 60 * self.options.minutes * TRAINING / self.sharing
        steps = self.trainer.steps_in(seconds, self.real.sampler(np.random.default_rng(0)))
        return int(self.compute.ranks.agreed(steps))

    def pace(self, width: int) -> float:
        """Multiplications and additions a second in the training of a ConvNet so wide, by timing a few steps."""
        network = student(default_student(self.real.shape, width), self.real.shape, self.real.num_classes)
        own = network == self.trainer.network and self.trainer.seconds_a_step
        seconds = own or Trainer(network, self.compute).timed(self.real.sampler(np.random.default_rng(0)))
        return float(self.compute.ranks.agreed(6.0 * network.multiply_adds * Recipe().batch_size / seconds))

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
        return train_teacher(self.trainer, self.real, np.random.default_rng(seed), self.on_step, self.most_steps)

    def features(self, images: torch.Tensor, batch: int = 250) -> torch.Tensor:
        """Normalised images (b, C, H, W) -> features (b, d), float32."""
        parameters = channels_innermost(self.parameters)
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
    most_steps: int = MOST_STEPS,
) -> list[list[torch.Tensor]]:
    """A network trained as `early_stopped` says, under shifts: as it is at the AGES of its training."""
    recipe = early_stopped(len(real.labels), light_augmentations(*real.shape[1:])[0], most_steps)

    def report(step: int) -> None:
        if on_step:
            on_step(Progress("teacher", step + 1, recipe.steps, None))

    return trainer.snapshots(real.sampler(generator), recipe, generator, report)
