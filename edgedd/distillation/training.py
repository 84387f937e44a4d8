"""Train a student with torch by a recipe: teachers on real images, and students on a synthetic set for validation."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation import networks
from edgedd.distillation.augment import augment
from edgedd.distillation.compiled_layers import channels_innermost
from edgedd.distillation.compute import Compute
from edgedd.distillation.real_images import normalise
from edgedd.planning.memory_model import GHOST_BATCH, even_share
from edgedd.recipe import Recipe
from edgedd.students import Network

EPOCHS = 4
LEAST_STEPS, MOST_STEPS = 300, 1400
WARM_STEPS, TIMED_STEPS = 3, 5
AGES = (1 / 14, 3 / 14, 1 / 2, 1.0)  # of a training, at which a network is kept where partly trained ones are wanted
Batch = tuple[torch.Tensor, torch.Tensor]
OnStep = Callable[[int], None]


def early_stopped(images: int, augmentation: Augmentation, most_steps: int = MOST_STEPS) -> Recipe:
    """A few epochs on so many: at tiny budgets an early-stopped teacher makes better labels than a finished one."""
    steps = int(np.clip(EPOCHS * images / 128, LEAST_STEPS, most_steps))
    return Recipe(student_lr=0.05, steps=steps, augmentation=augmentation)


class Trainer:
    """Compiled training and prediction of one network; the passes are shared by all its trainings.

    What is trained are its parameters and, behind them, its buffers: running statistics of batch norms. Their batches
    are taken in the shares that the device runtime takes by default, each normalised by its own statistics.

    Attributes:
        seconds_a_step: of the latest training, that of the first one with the compiler's; 0 before it.
    """

    def __init__(self, network: Network, compute: Compute) -> None:
        self.network = network
        self.compute = compute
        self._count, self._buffers = len(network.parameters()), network.buffers()
        self._loss = compute.compile(networks.training_loss, training=True)
        self._logits = compute.compile(networks.logits)
        self.seconds_a_step = 0.0

    def fit(
        self,
        sample: Callable[[int], Batch],
        recipe: Recipe,
        generator: np.random.Generator,
        on_step: OnStep | None = None,
    ) -> list[torch.Tensor]:
        """A fresh network trained for `recipe.steps` on `sample(batch_size)` -> images (b, C, H, W), labels (b, K).

        SGD exactly as the training graph does it: weight decay added to the gradient, then momentum.
        """
        return self.trajectory(sample, recipe, generator, [recipe.steps], on_step)[-1]

    def trajectory(
        self,
        sample: Callable[[int], Batch],
        recipe: Recipe,
        generator: np.random.Generator,
        ages: Sequence[int],
        on_step: OnStep | None = None,
    ) -> list[list[torch.Tensor]]:
        """What `fit` gives, as it is after each of the `ages`, in steps and rising, up to `recipe.steps`."""
        fresh = networks.fresh(self.network, generator, self.compute.device)
        parameters = [p.requires_grad_() for p in channels_innermost(fresh)]
        optimizer = torch.optim.SGD(
            parameters, lr=recipe.student_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        trained = [*parameters, *networks.started(self._buffers, generator, self.compute.device)]
        kept, begun = [], time.monotonic()
        for step in range(recipe.steps):
            optimizer.param_groups[0]["lr"] = recipe.learning_rate(step)
            images, labels = sample(recipe.batch_size)
            optimizer.zero_grad()
            self._backward(trained, augment(images, recipe.augmentation, generator), labels)
            optimizer.step()
            kept += [[_copied(p) for p in trained] for age in ages if age == step + 1]
            if on_step:
                on_step(step)
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()  # its steps go on behind
        self.seconds_a_step = (time.monotonic() - begun) / max(recipe.steps, 1)
        return kept

    def steps_in(self, seconds: float, sample: Callable[[int], Batch]) -> int:
        """How many steps of a teacher's training fit into so many seconds, at least LEAST_STEPS: by timing a few."""
        return int(np.clip(seconds / self.timed(sample), LEAST_STEPS, MOST_STEPS))

    def timed(self, sample: Callable[[int], Batch]) -> float:
        """Seconds of a step, by a few of them."""
        for steps in (WARM_STEPS, TIMED_STEPS):
            self.fit(sample, Recipe(steps=steps), np.random.default_rng(0))
        return self.seconds_a_step

    def _backward(self, trained: list[torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> None:
        """Add the gradient of the batch's mean loss; of a network with batch norms, share by share."""
        parameters, buffers = self._parts(trained)
        at_once = len(images) if buffers is None else even_share(len(images), GHOST_BATCH)
        for x, y in zip(torch.split(images, at_once), torch.split(labels, at_once), strict=True):
            with self.compute.autocast():
                loss = self._loss(self.network, parameters, x, y, buffers)
            (loss * (len(x) / len(images))).backward()  # type: ignore[no-untyped-call]

    def _parts(self, trained: Sequence[torch.Tensor]) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor] | None]:
        """Parameters, and the buffers of a network that has them."""
        return trained[: self._count], trained[self._count :] if self._buffers else None

    def snapshots(
        self,
        sample: Callable[[int], Batch],
        recipe: Recipe,
        generator: np.random.Generator,
        on_step: OnStep | None = None,
    ) -> list[list[torch.Tensor]]:
        """What `fit` gives, at the AGES of the training."""
        ages = [max(1, round(age * recipe.steps)) for age in AGES]
        return self.trajectory(sample, recipe, generator, ages, on_step)

    def logits(self, trained: networks.Parameters, images: torch.Tensor, batch: int = 250) -> torch.Tensor:
        """Normalised images (N, C, H, W) -> logits (N, K) in float32, whatever the precision of the passes."""
        parameters, buffers = self._parts(trained)
        with torch.no_grad(), self.compute.autocast():
            own = channels_innermost(parameters)
            outputs = [self._logits(self.network, own, part, buffers) for part in torch.split(images, batch)]
        return torch.cat(outputs).float()

    def accuracy(
        self, trained: networks.Parameters, images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray
    ) -> float:
        """Fraction of uint8 images (N, C, H, W) whose class is predicted."""
        right = 0
        for start in range(0, len(images), 5000):
            part = normalise(self.compute.tensor(images[start : start + 5000]), mean, std)
            predicted = self.logits(trained, part).argmax(1).cpu().numpy()
            right += int((predicted == labels[start : start + 5000]).sum())
        return right / len(images)


def _copied(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().clone(memory_format=torch.contiguous_format)


class Shuffled:
    """Batches of a fixed set without replacement, reshuffled every epoch; a smaller set is given whole."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator) -> None:
        self.images, self.labels, self.generator = images, labels, generator
        self.order = np.empty(0, np.int64)

    def __call__(self, count: int) -> Batch:
        """Images (b, C, H, W) and labels (b, K) with b = min(count, n)."""
        count = min(count, len(self.images))
        if len(self.order) < count:
            self.order = self.generator.permutation(len(self.images))
        rows, self.order = torch.from_numpy(self.order[:count].copy()), self.order[count:]
        rows = rows.to(self.images.device)
        return self.images[rows], self.labels[rows]
