"""Learning from new labelled images on a device without forgetting: old classes are rehearsed on the synthetic set."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgedd.device.images import channels_first, checked_labels
from edgedd.device.rehearsal_run import Change, Run, Settings, Watch
from edgedd.device.reservoir import LABEL_BYTES, Reservoir
from edgedd.device.spare import extended
from edgedd.device.student import Student
from edgedd.errors import DataError, EdgeddError, SettingError

OnStep = Callable[[int, int, float], object]
Test = tuple[np.ndarray, np.ndarray]
ONE_IN, LEAST_IMAGES, MOST_BUFFER_BYTES = 5, 5, 2**30


@dataclass(frozen=True)
class RehearsalResult:
    """What a run did.

    Attributes:
        steps, seconds, losses: optimizer steps of the run so far, wall time of this call, loss of each step (steps,).
        best_step: the step whose parameters were kept.
        finished: whether it came to its end; otherwise `resume` goes on, and accuracies have no `after`.
        old_accuracy: on classes known before: rows of the set that are not rehearsed, new images held out.
        new_accuracy: on classes that are new in this run: new images held out.
        image_accuracy: on all new images held out, of whatever class.
    """

    steps: int
    seconds: float
    losses: np.ndarray
    best_step: int
    finished: bool
    old_accuracy: Change
    new_accuracy: Change
    image_accuracy: Change


class Rehearsal:
    """New images for a student, within `buffer_bytes`, and runs of training that mix them with its set.

    Every fifth image of a class is held out to watch the runs by. One seed and one thread give the same bits each time,
    also when a run is stopped, saved, loaded and resumed. Attributes: `student`, `classes`: names of the student's
    classes and of those that the next run adds, `buffer_bytes`, `seed`.
    """

    def __init__(self, student: Student, *, buffer_bytes: int = 200_000, seed: int = 0) -> None:
        shape = student.bundle.image_shape
        each = int(np.prod(shape)) + LABEL_BYTES
        if type(buffer_bytes) is not int or not LEAST_IMAGES * each <= buffer_bytes <= MOST_BUFFER_BYTES:
            wanted = f"[{LEAST_IMAGES * each}, {MOST_BUFFER_BYTES}]"
            raise SettingError(f"buffer_bytes={buffer_bytes!r}, wanted a whole number in {wanted}, 5 images at least")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise SettingError(f"seed={seed!r}, wanted a whole number of at least 0")
        self.student, self.buffer_bytes, self.seed = student, buffer_bytes, seed
        held = max(1, buffer_bytes // each // ONE_IN)
        self.kept, self.held = (Reservoir(n, shape) for n in (buffer_bytes // each - held, held))
        self.generator = np.random.default_rng(seed)
        self.run: Run | None = None
        self.pending: tuple[str, ...] = ()
        self.added: dict[int, int] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The student's, and those that the next run adds."""
        return self.student.classes + self.pending

    @property
    def nbytes(self) -> int:
        """Bytes that the images in the buffer take."""
        return self.kept.nbytes + self.held.nbytes

    def add(self, images: np.ndarray, labels: Sequence[str] | Sequence[int] | np.ndarray) -> None:
        """Take new images, uint8 in any layout that `predict` takes, and their labels: names, or numbers in `classes`.

        A name that is not among the classes is a new class, which takes a spare output. When the buffer is full, images
        give way, so that every class keeps as many. Nothing is taken when something is refused.

        Raises:
            DataError: images of another type or size, labels that are not one for each, or numbers of no class.
            SettingError: more new classes than spare outputs, or a run is not finished.
        """
        if self.run is not None:
            raise SettingError("a run is not finished, wanted no new images in the midst of it: call resume first")
        images = channels_first(np.asarray(images), self.student.bundle.image_shape)
        given = np.asarray(labels)
        if given.dtype.kind == "U" and given.shape == (len(images),):
            names = given.tolist()
            new = tuple(dict.fromkeys(name for name in names if name not in self.classes))
            self._refuse(self.pending + new)
            self.pending += new
            numbers = np.array([self.classes.index(name) for name in names], np.int64)
        else:
            numbers = checked_labels(given, len(images), len(self.classes)) if len(images) else np.zeros(0, np.int64)
        for image, label in zip(images, numbers.tolist(), strict=True):
            number = self.added[label] = self.added.get(label, 0) + 1
            part = self.held if number % ONE_IN == 2 else self.kept
            part.add(image, label, self.generator)

    def fit(
        self,
        *,
        ratio: float | None = None,
        steps: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        patience: int = 5,
        test: Test | None = None,
        on_step: OnStep | None = None,
    ) -> RehearsalResult:
        """Train the student on the new images and on rows of its set, and keep the parameters of the best check.

        Args:
            ratio: share of new images in each batch; 1 rehearses nothing. By default that of their classes, c of them
                beside the K of the set: c / (c + K), so that a new class has as many as an old one.
            steps: at most; by default the recipe's.
            lr: at the start of a cosine; by default the recipe's.
            batch_size: by default the recipe's.
            patience: of twenty checks of the loss on what is held out (half rows of the set, half new images), how many
                may pass without a lower one.
            test: images and labels (numbers in `classes`) to tell accuracies by, instead of what is held out.
            on_step: called with (step, steps, loss); when it returns False the run stops there, for `resume`.

        Raises:
            DataError: no new image to learn from, or a test that does not fit.
            SettingError: impossible settings, a run that is not finished, or a student that was trained afresh since.
            EdgeddError: the loss is not finite; the last good parameters are kept, and another run may begin.
        """
        if self.run is not None:
            raise SettingError("a run is not finished: call resume, or make another Rehearsal")
        if not len(self.kept.labels):
            raise DataError("no new images to learn from, wanted one at least: call add first")
        recipe = self.student.recipe
        count = len(np.unique(self.kept.labels))
        settings = Settings(
            steps=recipe.steps if steps is None else steps,
            ratio=count / (count + len(self.student.synthetic.classes)) if ratio is None else ratio,
            lr=recipe.student_lr if lr is None else lr,
            batch_size=recipe.batch_size if batch_size is None else batch_size,
            patience=patience,
        )
        self._refuse(self.pending)
        known = len(self.student.classes)
        watch = self._watch(test)
        before = watch.measure(self.student, known)
        self.student.add_classes(self.pending)
        self.pending = ()
        if known == len(self.student.classes):
            self.student.restart()
        self.run = Run(settings, known, (before.old, before.new, before.images))
        return self._go_on(watch, on_step)

    def resume(self, *, test: Test | None = None, on_step: OnStep | None = None) -> RehearsalResult:
        """Go on with a run that was stopped; `test` as `fit` was given it. Raises SettingError when there is none."""
        if self.run is None:
            raise SettingError("no run was stopped, wanted one to resume: call fit")
        return self._go_on(self._watch(test), on_step)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write images, student and the run in progress to a .safetensors file, whole or not at all."""
        from edgedd.device.rehearsal_state import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], student: Student) -> "Rehearsal":
        """What `save` wrote, with `student`, of the same bundle, put back to how it was.

        Raises FormatError for a file that is damaged, or of another bundle.
        """
        from edgedd.device.rehearsal_state import load

        return load(path, student)

    def _refuse(self, new: Sequence[str]) -> None:
        outputs = len(self.student.classes) + self.student.spare_classes
        extended(self.student.classes, new, outputs, self.student.bundle.mode)

    def _watch(self, test: Test | None) -> Watch:
        if max(self.added, default=0) >= len(self.classes):
            raise SettingError("the student has forgotten classes of the buffer's images: load its weights again")
        if test is not None:
            test = test[0], checked_labels(test[1], len(test[0]), len(self.classes))
        return Watch(self.student, self.held, self.seed, test)

    def _go_on(self, watch: Watch, on_step: OnStep | None) -> RehearsalResult:
        assert self.run
        run, began, goes_on = self.run, time.perf_counter(), True
        while goes_on and not run.done:
            try:
                run.losses.append(self._step(run, watch.rehearsed))
            except EdgeddError:
                self.run = None  # another one may begin, with other settings
                raise
            run.step += 1
            if run.step % run.settings.check_every == 0 or run.step == run.settings.steps:
                run.note(watch.measure(self.student, run.known).loss, self.student.parameters)
            if on_step:
                goes_on = on_step(run.step, run.settings.steps, run.losses[-1]) is not False
        after: tuple[float | None, ...] = (None, None, None)
        if run.done:
            self.student.restart(run.best)
            self.run = None
            after = watch.measure(self.student, run.known)[1:]
        changes = [Change(*each) for each in zip(run.before, after, watch.counts(run.known), strict=True)]
        losses = np.array(run.losses, np.float32)
        return RehearsalResult(run.step, time.perf_counter() - began, losses, run.best_step, self.run is None, *changes)

    def _step(self, run: Run, rehearsed: np.ndarray) -> float:
        """One optimizer step; new images and rows are drawn afresh, images again where there are too few."""
        settings, generator = run.settings, self.generator
        count = len(self.kept.labels)
        chosen = generator.choice(count, settings.new, replace=count < settings.new)
        rows = generator.choice(rehearsed, min(settings.batch_size - settings.new, len(rehearsed)), replace=False)
        images = self.student.normalise(self.kept.images[chosen])
        labels = np.eye(len(self.student.classes), dtype=np.float32)[self.kept.labels[chosen]]
        rate = settings.learning_rate(run.step)
        return self.student.step(images, labels, rate, rows=rows, augment=generator)
