"""An early-stopped teacher on the real images, and the labels it gives the synthetic set to start from."""

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import OnStep, Progress
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.training import Batch, Trainer
from edgedd.recipe import Recipe
from edgedd.students import default_student, student

EPOCHS = 4
TEMPERATURE = 2.0
WIDTH = 32
HARD_LOGIT = 20.0


def start_logits(
    real: RealImages, images: torch.Tensor, options: Options, compute: Compute, on_step: OnStep | None
) -> np.ndarray:
    """Label logits (n, K) for normalised `images` (n, C, H, W) in class-major order.

    Hard labels are one-hot; otherwise the teacher's logits at temperature 2, of the images as they are before storage.
    """
    count = len(images)
    if options.labels == "hard":
        return HARD_LOGIT * np.eye(real.num_classes, dtype=np.float32)[np.arange(count) * real.num_classes // count]
    trainer = Trainer(student(default_student(real.shape, WIDTH), real.shape, real.num_classes), compute)
    parameters = train_teacher(trainer, real, np.random.default_rng([options.seed, 0]), on_step)
    outputs = trainer.logits(parameters, images) / TEMPERATURE
    logits: np.ndarray = torch.log_softmax(outputs, dim=1).cpu().numpy()
    return logits


def train_teacher(
    trainer: Trainer, real: RealImages, generator: np.random.Generator, on_step: OnStep | None = None
) -> list[torch.Tensor]:
    """A few epochs: at tiny budgets an early-stopped teacher makes better labels than a finished one."""
    steps = int(np.clip(EPOCHS * len(real.labels) / 128, 300, 1400))
    recipe = Recipe(student_lr=0.05, steps=steps, augmentation=Augmentation(shift=max(1, min(real.shape[1:]) // 16)))

    def sample(count: int) -> Batch:
        images, labels = real.sample(count, generator)
        return images, torch.nn.functional.one_hot(labels, real.num_classes).float()

    def report(step: int) -> None:
        if on_step:
            on_step(Progress("teacher", step + 1, steps, None))

    return trainer.fit(sample, recipe, generator, report)
