"""A student network on a device: trains from the bundle's synthetic set, adapts to images, predicts.

Letters: b images, m images from outside, k rows of the set, C channels, H and W pixels, K classes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgedd.augmentation import Draw, draw
from edgedd.bundle import SET, Bundle
from edgedd.device import weights
from edgedd.device.images import checked_batch, checked_labels, checked_rows, normalised
from edgedd.device.sessions import Runtime, Sessions
from edgedd.device.trainer import Trainer
from edgedd.errors import BundleError
from edgedd.recipe import Recipe
from edgedd.students import initial_parameters
from edgedd.synthetic_set import SyntheticSet

MICRO_BATCH = 64
NO_ROWS = np.zeros(0, np.int64)
OnEpoch = Callable[[int, float], object]


@dataclass(frozen=True)
class TrainResult:
    """What a training run did: optimizer steps, wall time, and the loss of every step (steps,) float32."""

    steps: int
    seconds: float
    losses: np.ndarray

    @property
    def final_loss(self) -> float:
        """Loss of the last step."""
        return float(self.losses[-1])


class Student:
    """Made by `Student.load`. Attributes: `bundle`, `synthetic` (the set), `recipe`, `classes`."""

    def __init__(self, bundle: Bundle, synthetic: SyntheticSet, runtime: Runtime, seed: int) -> None:
        self.bundle, self.synthetic = bundle, synthetic
        self.recipe, self.classes = synthetic.recipe, synthetic.classes
        self._shape = synthetic.parameterization.shape
        self._sessions = Sessions(bundle, runtime)
        self._specs = dict(self._sessions.facts.parameters)
        self._trainer = Trainer(self._sessions, synthetic, self._fresh(np.random.default_rng(seed)))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, threads: int | None = None, seed: int = 0, low_memory: bool = False
    ) -> "Student":
        """Open a bundle with fresh parameters drawn from `seed`.

        `threads` is the number of CPU threads, by default one a core; one thread gives the same bits each time.
        `low_memory` hands each tensor's memory back to the system at once: activations take half the memory and steps
        about twice the time. Raises BundleError or FormatError for a bundle that is incomplete or altered,
        SettingError for impossible options.
        """
        bundle = Bundle.load(path)
        synthetic = SyntheticSet.load(bundle.file(SET))
        if (synthetic.parameterization.shape, synthetic.classes) != (bundle.image_shape, bundle.classes):
            raise BundleError(f"{bundle.path}: the manifest and the set differ in shape or classes: export it again")
        return cls(bundle, synthetic, Runtime(threads, low_memory), seed)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the parameters: name -> float32 array."""
        return self._trainer.parameters()

    @property
    def activation_bytes(self) -> int:
        """Predicted peak of activations per image of a training batch; the default arena takes up to twice as much."""
        return self._sessions.facts.activation_bytes

    def fit(
        self, seed: int = 0, on_epoch: OnEpoch | None = None, steps: int | None = None, *, fresh: bool = True
    ) -> TrainResult:
        """Train on the bundle's set by its recipe, from fresh parameters drawn from `seed`.

        `on_epoch(epoch, mean loss)` is called after each pass over the set, epochs counted from 1. `steps` replaces the
        recipe's number, and the schedule shortens with it. `fresh=False` goes on from the present
        parameters. Raises EdgeddError when the loss stops being finite; the last good parameters are kept.
        """
        recipe = self.recipe if steps is None else replace(self.recipe, steps=steps)
        generator = np.random.default_rng(seed)
        start = self._fresh(generator) if fresh else self.parameters
        self._trainer.reset(start)
        began, losses, epoch_losses, epoch = time.perf_counter(), list[float](), list[float](), 0
        for step, (rows, ends_epoch) in zip(range(recipe.steps), self._batches(recipe, generator), strict=False):
            drawn = draw(recipe.augmentation, len(rows), *self._shape[1:], generator)
            epoch_losses.append(self._trainer.step(rows, *self._nothing(), recipe.learning_rate(step), drawn))
            if ends_epoch or step + 1 == recipe.steps:
                epoch += 1
                losses.extend(epoch_losses)
                if on_epoch:
                    on_epoch(epoch, float(np.mean(epoch_losses)))
                epoch_losses = []
        self._trainer.check_finite()
        return TrainResult(len(losses), time.perf_counter() - began, np.array(losses, np.float32))

    def step(self, images: np.ndarray, soft_labels: np.ndarray, lr: float, *, rows: np.ndarray = NO_ROWS) -> float:
        """One optimizer step on images from outside, together with `rows` of the set to rehearse.

        Images are float32 (m, C, H, W), normalised (see `normalise`), soft labels (m, K); neither these nor the rows
        (k,) are augmented. Returns the loss before the step. Raises DataError for other shapes, EdgeddError when
        the loss is not finite.
        """
        checked_batch(images, soft_labels, self._shape, len(self.classes))
        rows = checked_rows(rows, self.synthetic.count)
        return self._trainer.step(rows, images, soft_labels.astype(np.float32), lr, _unchanged(len(rows) + len(images)))

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (b, C, H, W), (b, H, W, C) or, of one channel, (b, H, W) -> float32 (b, C, H, W) for `step`."""
        tensors = self.synthetic.tensors
        return normalised(np.asarray(images), self._shape, tensors["mean"], tensors["std"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (b, K), float32. uint8 images are normalised here, float32 (b, C, H, W) are taken as they are."""
        images = np.asarray(images)
        logits = [np.zeros((0, len(self.classes)), np.float32)]
        for first in range(0, max(len(images), 1), MICRO_BATCH):
            batch = self.normalise(images[first : first + MICRO_BATCH])
            if len(batch):
                logits.append(self._trainer.predict(batch))
        return np.concatenate(logits)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of images, as in `predict`, whose largest logit is that of their label (b,)."""
        labels = checked_labels(labels, len(images), len(self.classes))
        return float(np.mean(self.predict(images).argmax(axis=1) == labels))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters to a .safetensors file, whole or not at all."""
        self._trainer.check_finite()
        weights.save(path, self.parameters)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Take over the parameters that `save` wrote. Raises FormatError when they are of another student."""
        self._trainer.reset(weights.load(path, self._specs))

    def _fresh(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return initial_parameters(self._specs, generator)

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        """No images from outside and no labels."""
        return np.zeros((0, *self._shape), np.float32), np.zeros((0, len(self.classes)), np.float32)

    def _batches(self, recipe: Recipe, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, bool]]:
        """Rows of each step and whether they end an epoch; what does not fill a batch waits for another epoch."""
        count = self.synthetic.count
        size = min(recipe.batch_size, count)
        while True:
            order = generator.permutation(count)
            for first in range(0, count - size + 1, size):
                yield order[first : first + size], first + 2 * size > count


def _unchanged(count: int) -> Draw:
    """The draw that leaves `count` images as they are."""
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    colour = np.tile(np.array([0, 1, 1], np.float32), (count, 1))
    # Outside the image, so that no pixel's centre is cut out.
    cutout = np.tile(np.array([9, 9, 0, 0], np.float32), (count, 1))
    return Draw(affine, cutout, colour)
