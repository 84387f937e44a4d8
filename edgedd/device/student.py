"""A student network on a device: trains from the bundle's synthetic set, adapts to images, predicts.

Letters: b images, m images from outside, k rows of the set, C channels, H and W pixels, K classes.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from edgedd.augmentation import Draw, draw, unchanged
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import SET, WEIGHTS
from edgedd.device.batches import batches
from edgedd.device.images import checked_batch, checked_labels, checked_rows, normalised
from edgedd.device.sessions import Runtime, Sessions
from edgedd.device.spare import extended, initial_weights, widened, with_new, without_unused
from edgedd.device.trainer import Batch, Trainer
from edgedd.errors import BundleError, DataError, FormatError, SettingError
from edgedd.planning.memory_model import even_share, suited_micro_batch
from edgedd.synthetic_set import SyntheticSet
from edgedd.weights import load_weights, save_weights, saved_classes

PREDICT_BATCH = 64
NO_ROWS = np.zeros(0, np.int64)
OnEpoch = Callable[[int, float], object]
OnStep = Callable[[int, int, float], object]
Given = ParamSpec("Given")
Result = TypeVar("Result")


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


def _by_one_thread(
    method: Callable[Concatenate["Student", Given], Result],
) -> Callable[Concatenate["Student", Given], Result]:
    """Refuse while another thread trains the student; what training calls may train in turn."""

    @wraps(method)
    def alone(student: "Student", /, *arguments: Given.args, **options: Given.kwargs) -> Result:
        if not student.training.acquire(blocking=False):
            raise SettingError("another thread trains this student: wait for it, or load one of your own")
        try:
            return method(student, *arguments, **options)
        finally:
            student.training.release()

    return alone


class Student:
    """Made by `Student.load`. Attributes: `bundle`, `synthetic` (the set), `recipe`, `classes`: names of the set's
    classes, and of those that were added to spare outputs.

    One thread trains it, and holds `training`: `fit`, `step`, `save` and `load_weights` raise SettingError while
    another one does. `predict`, `evaluate` and `parameters` are for any thread, with the parameters of that moment.
    """

    def __init__(self, bundle: Bundle, synthetic: SyntheticSet, runtime: Runtime, seed: int) -> None:
        self.bundle, self.synthetic = bundle, synthetic
        self.recipe, self.classes = synthetic.recipe, synthetic.classes
        self._shape = synthetic.parameterization.shape
        self._sessions = Sessions(bundle, runtime)
        facts = self._sessions.facts
        self._specs = {**facts.parameters, **facts.buffers}
        if facts.outputs < len(self.classes):
            raise BundleError(f"{bundle.path}: the graph has fewer outputs than the set has classes: export it again")
        given = load_weights(bundle.checked(WEIGHTS), self._specs, facts.outputs) if bundle.holds(WEIGHTS) else {}
        self._given = without_unused(given, len(self.classes))
        self._trainer = Trainer(self._sessions, synthetic, self._fresh(np.random.default_rng(seed)))
        self._changed = not self._given
        self.training = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        seed: int = 0,
        low_memory: bool = False,
        micro_batch: int | None = None,
        require_signature: str | os.PathLike[str] | None = None,
        student: str | None = None,
    ) -> "Student":
        """Open a bundle, folder or .edgedd.zip, with the weights that it brings or with fresh ones drawn from `seed`.

        `threads` is the number of CPU threads, by default one for each core of the bundle's target, as far as this
        machine has them; one thread gives the same bits each time. `micro_batch` is how many images of a batch are
        computed at once: memory grows with it, and the result is the same but for batch normalisation, whose
        statistics are those of a micro-batch; by default that of the plan for the bundle's target, or else what keeps
        activations in the processor's cache, or up to 32 with batch normalisation (ghost batches, Hoffer et al. 2017).
        `low_memory` goes image by image unless
        `micro_batch` says otherwise, and hands each tensor's memory back to the system at once. `student` is the name
        of one of the bundle's students, by default its first. Raises BundleError or
        FormatError for a bundle that is incomplete or altered, SettingError for impossible options.
        """
        bundle = Bundle.load(path, require_signature=require_signature, student=student)
        synthetic = SyntheticSet.load(bundle.checked(SET))
        if (synthetic.parameterization.shape, synthetic.classes) != (bundle.image_shape, bundle.classes):
            raise BundleError(f"{bundle.path}: the manifest and the set differ in shape or classes: export it again")
        return cls(bundle, synthetic, Runtime(threads, low_memory, micro_batch), seed)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, and of running statistics: name -> float32 array."""
        return self._trainer.weights()

    @property
    def spare_classes(self) -> int:
        """How many classes can still be added."""
        return self._sessions.facts.outputs - len(self.classes)

    @property
    def activation_bytes(self) -> int:
        """Predicted peak of activations per image of a micro-batch, without what the arena takes on top."""
        return self._sessions.facts.activation_bytes

    def micro_batch(self, batch: int) -> int:
        """How many images of a batch of `batch` are computed at once."""
        facts, runtime = self._sessions.facts, self._sessions.runtime
        if runtime.micro_batch is not None:
            return min(runtime.micro_batch, max(batch, 1))
        if self.bundle.micro_batch is not None and not runtime.low_memory:
            return even_share(-(-batch // self._sessions.threads), self.bundle.micro_batch)
        if runtime.low_memory and not facts.batch_statistics:
            return 1
        threads, statistics = self._sessions.threads, facts.batch_statistics
        return suited_micro_batch(batch, threads, facts.activation_bytes, batch_statistics=statistics)

    @_by_one_thread
    def fit(
        self,
        seed: int = 0,
        on_epoch: OnEpoch | None = None,
        steps: int | None = None,
        *,
        fresh: bool = True,
        rows: np.ndarray | None = None,
        on_step: OnStep | None = None,
    ) -> TrainResult:
        """Train on the bundle's set by its recipe, from the bundle's weights or fresh ones drawn from `seed`.

        `on_epoch(epoch, mean loss)` is called after each pass over the set, epochs counted from 1, and
        `on_step(step, steps, loss)` after each step; when one of them returns False, training ends there. `steps`
        replaces the recipe's number, and the schedule shortens with it. `fresh=False` goes on from the present
        parameters; otherwise classes that were added are gone. `rows` are those of the set to train on, all by default.
        Raises EdgeddError when the loss stops being finite; the last good parameters are kept.
        """
        rows = np.arange(self.synthetic.count) if rows is None else checked_rows(rows, self.synthetic.count)
        if not len(rows):
            raise DataError("no rows to train on, wanted at least one: leave rows out for the whole set")
        recipe = self.recipe if steps is None else replace(self.recipe, steps=steps)
        generator = np.random.default_rng(seed)
        start = self._fresh(generator) if fresh else self.parameters
        self.classes = self.synthetic.classes if fresh else self.classes
        self._trainer.reset(start)
        began, losses, epoch, epoch_start, goes_on = time.perf_counter(), list[float](), 0, 0, True
        passes = batches(rows, recipe.batch_size, generator)
        for step, (batch, ends_epoch) in zip(range(recipe.steps), passes, strict=False):
            drawn = draw(recipe.augmentation, len(batch), *self._shape[1:], generator)
            losses.append(self._step(self._stored(batch), recipe.learning_rate(step), drawn))
            if on_step:
                goes_on = on_step(step + 1, recipe.steps, losses[-1]) is not False
            if ends_epoch or step + 1 == recipe.steps:
                epoch += 1
                if on_epoch:
                    goes_on = on_epoch(epoch, float(np.mean(losses[epoch_start:]))) is not False and goes_on
                epoch_start = len(losses)
            if not goes_on:
                break
        self._trainer.check_finite()
        return TrainResult(len(losses), time.perf_counter() - began, np.array(losses, np.float32))

    @_by_one_thread
    def step(
        self,
        images: np.ndarray,
        soft_labels: np.ndarray,
        lr: float,
        *,
        rows: np.ndarray = NO_ROWS,
        augment: np.random.Generator | None = None,
    ) -> float:
        """One optimizer step on images from outside, together with `rows` of the set to rehearse.

        Images are float32 (m, C, H, W), normalised (see `normalise`), soft labels (m, K). These and the rows (k,) are
        augmented as the recipe says where there is a generator to draw from. Returns the loss before the step. Raises
        DataError for other shapes, EdgeddError when the loss is not finite.
        """
        checked_batch(images, soft_labels, self._shape, len(self.classes))
        rows = checked_rows(rows, self.synthetic.count)
        batch = Batch(rows, images, widened(soft_labels, self._sessions.facts.outputs))
        drawn = unchanged(batch.size)
        if augment is not None:
            drawn = draw(self.recipe.augmentation, batch.size, *self._shape[1:], augment)
        return self._step(batch, lr, drawn)

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (b, C, H, W), (b, H, W, C) or, of one channel, (b, H, W) -> float32 (b, C, H, W) for `step`."""
        tensors = self.synthetic.tensors
        return normalised(np.asarray(images), self._shape, tensors["mean"], tensors["std"])

    def predict(self, images: np.ndarray, *, int8: bool = False) -> np.ndarray:
        """Logits (b, K) of `classes`, float32. uint8 images are normalised here, float32 (b, C, H, W) are taken as is.

        `int8` takes the bundle's quantised graph, which holds the weights that the bundle brings. Raises BundleError
        when there is none, SettingError when the parameters have changed since.
        """
        if int8 and self._changed:
            raise SettingError(
                "the int8 graph has the bundle's weights, these were trained since: predict without int8"
            )
        images = np.asarray(images)
        logits = [np.zeros((0, len(self.classes)), np.float32)]
        for first in range(0, max(len(images), 1), PREDICT_BATCH):
            batch = self.normalise(images[first : first + PREDICT_BATCH])
            if len(batch):
                logits.append(self._trainer.predict(batch, int8=int8)[:, : len(self.classes)])
        return np.concatenate(logits)

    def evaluate(self, images: np.ndarray, labels: np.ndarray, *, int8: bool = False) -> float:
        """Fraction of images, as in `predict`, whose largest logit is that of their label (b,)."""
        labels = checked_labels(labels, len(images), len(self.classes))
        return float(np.mean(self.predict(images, int8=int8).argmax(axis=1) == labels))

    @_by_one_thread
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters, and names of classes that were added, to a .safetensors file, whole or not at all."""
        self._trainer.check_finite()
        save_weights(path, self.parameters, self.classes if self.classes != self.synthetic.classes else ())

    @_by_one_thread
    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Take over what `save` wrote. Raises FormatError when it is of another student."""
        outputs, own = self._sessions.facts.outputs, self.synthetic.classes
        weights = load_weights(path, self._specs, outputs)
        classes = saved_classes(path) or own
        if classes[: len(own)] != own or len(classes) > outputs:
            raise FormatError(f"{path} names other classes than the bundle's: these weights are of another student")
        self._changed, self.classes = True, classes
        self._trainer.reset(without_unused(weights, len(classes)))

    @_by_one_thread
    def add_classes(self, names: Sequence[str]) -> None:
        """Give spare outputs to new classes, which nothing is known of yet; the optimizer's state goes back to zero.

        Raises SettingError when there are too few, a name is taken or impossible, or training leaves the head as it is.
        """
        classes = extended(self.classes, names, self._sessions.facts.outputs, self.bundle.mode)
        if names:
            opened = with_new(self.parameters, len(self.classes), len(names))
            self._changed, self.classes = True, classes
            self._trainer.reset(opened)

    @_by_one_thread
    def restart(self, weights: Mapping[str, np.ndarray] | None = None) -> None:
        """The optimizer's state goes back to zero, and the parameters to `weights`, by name, where there are some."""
        self._changed = self._changed or weights is not None
        self._trainer.reset(weights or self.parameters)

    def snapshot(self) -> tuple[dict[str, np.ndarray], int]:
        """All that a training step changes, by name, and the steps so far; `restore` goes on from there."""
        return self._trainer.snapshot(), self._trainer.steps

    @_by_one_thread
    def restore(self, snapshot: Mapping[str, np.ndarray], steps: int, classes: tuple[str, ...]) -> None:
        """Go back to a `snapshot`, with the classes that there were then."""
        self._changed, self.classes = True, classes
        self._trainer.restore(snapshot, steps)

    def _step(self, batch: Batch, lr: float, drawn: Draw) -> float:
        self._changed = True
        return self._trainer.step(batch, lr, drawn, self.micro_batch(batch.size))

    def _fresh(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        used, outputs = len(self.synthetic.classes), self._sessions.facts.outputs
        return self._given or initial_weights(self._specs, used, outputs, generator)

    def _stored(self, rows: np.ndarray) -> Batch:
        """Rows of the set, and nothing from outside."""
        nothing = np.zeros((0, *self._shape), np.float32), np.zeros((0, self._sessions.facts.outputs), np.float32)
        return Batch(rows, *nothing)
