"""`edgedd.distill`: from real images to a synthetic set within a byte budget."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgedd
from edgedd import planner
from edgedd.distillation import recipe_search
from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import Length, Loop, OnStep, Progress
from edgedd.distillation.methods import Method, method_named
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.teacher import start_logits
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Trainer
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

LABELS = ("auto", "hard", "teacher", "learned")
COMPILE_ABOVE_FLOPS = 4e12
DEFAULT_ITERATIONS = 1500


@dataclass(frozen=True)
class Options:
    """What to distil and for how long.

    Attributes:
        method: a name in METHODS, or a method object of your own.
        settings: hyperparameters of a named method to change, as text.
        bytes, ipc: the size: bytes of the file, or images per class.
        parameterization, rank, subspaces, bits: how images are stored; by default `low_rank` at rank side / 4, 4 bits.
        labels: "hard", "teacher" (fixed soft labels), "learned", or "auto": what the method does by default.
        iterations, minutes: the length of the run; minutes count everything from the call to the file.
        width: channels of the networks that distil (the ConvNet whose depth fits the images).
        recipe: a training recipe to store, instead of searching one on the validation split.
        output, resume: where the file goes, with its checkpoint beside it; resume continues from that.
    """

    method: "str | Method" = "frepo"
    settings: Mapping[str, str] | None = None
    bytes: int | None = None
    ipc: int | None = None
    parameterization: str | None = None
    rank: int | None = None
    subspaces: int | None = None
    bits: int | None = None
    labels: str = "auto"
    iterations: int | None = None
    minutes: float | None = None
    width: int = 64
    seed: int = 0
    device: str = "cpu"
    recipe: Recipe | None = None
    output: str | os.PathLike[str] | None = None
    resume: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise SettingError(f"labels {self.labels!r}, wanted one of {', '.join(LABELS)}")
        if self.iterations is not None and self.minutes is not None:
            raise SettingError("both iterations and minutes are given: leave one out")
        for name in ("bytes", "ipc", "iterations", "minutes", "width"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise SettingError(f"{name}={value}, wanted more than 0")
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed={self.seed}, wanted a whole number of at least 0")
        if self.resume and self.output is None:
            raise SettingError("resume needs the output whose checkpoint it continues")


def distill(
    data: "LabelledImages | str | os.PathLike[str]", *, on_step: OnStep | None = None, **options: Any
) -> SyntheticSet:
    """Condense labelled images into a synthetic set; keyword arguments are the fields of `Options`.

    Settings are chosen on a validation split of the training images; the test images are never read. The same data,
    options and seed give the same file on the same machine.

    Raises:
        SettingError, BudgetError, DataError: one line each.
    """
    known = [f.name for f in fields(Options)]
    for name in options:
        if name not in known:
            raise SettingError(f"distill has no option {name!r}, wanted one of {', '.join(known)}")
    loaded = data if isinstance(data, LabelledImages) else load_data(data)
    return Distillation(loaded, Options(**options), on_step).run()


class Distillation:
    """One run: plan, teacher, start, outer loop, recipe, file."""

    def __init__(self, data: LabelledImages, options: Options, on_step: OnStep | None) -> None:
        self.begun = time.monotonic()
        self.options = options
        self.on_step = on_step
        self.method = _method(options)
        self.classes, self.fingerprint = data.classes, data.fingerprint
        wanted = planner.parameterization_for(
            data.shape, options.parameterization, options.rank, options.bits, options.subspaces
        )
        self.storage = planner.storage(
            wanted, data.classes, self._provenance(999_999), budget_bytes=options.bytes, ipc=options.ipc
        )
        if wanted.kind == "low_rank" and wanted.subspaces > self.storage.ipc * data.num_classes:  # type: ignore[union-attr]
            raise SettingError(f"{options.subspaces} subspaces, more than the images that fit: ask for fewer")
        self.training, held_out = data.split(seed=options.seed)
        self.validation = recipe_search.Validation(held_out[0][:5000], held_out[1][:5000])
        self.compute = Compute.choose(options.device, compiled=self._work() > COMPILE_ABOVE_FLOPS)
        self.real = RealImages.of(self.training, self.compute)

    def run(self) -> SyntheticSet:
        """All stages; the file is written when `output` is given."""
        checkpoint = self._checkpoint()
        saved = checkpoint.load() if checkpoint and self.options.resume else None
        loop = self._start(saved)
        deadline = None
        if self.options.minutes is not None:
            deadline = self.begun + 60 * self.options.minutes - self._search_seconds()
        loop.run(Length(self._iterations(), deadline), checkpoint, self.on_step)
        synthetic = self._stored(loop, self.options.recipe or Recipe())
        if self.options.recipe is None:
            synthetic = replace(synthetic, recipe=self._search(synthetic))
        if self.options.output is not None:
            synthetic.save(self.options.output)
        if checkpoint:
            checkpoint.remove()
        return synthetic

    def _start(self, saved: dict[str, Any] | None) -> Loop:
        form, device = self.storage.parameterization, self.compute.device
        if saved is None:
            chooser = np.random.default_rng([self.options.seed, 1])
            rows = [self.real.sample_class(c, self.storage.ipc, chooser) for c in range(self.real.num_classes)]
            images = self.real.normalised(np.concatenate(rows))
            logits = start_logits(self.real, images, self.options, self.compute, self.on_step)
            synthetic = TrainableSet.start(form, images.cpu().numpy(), logits, device)
        else:
            count = self.storage.ipc * self.real.num_classes
            synthetic = TrainableSet.blank(form, count, self.real.num_classes, device)
        generator = np.random.default_rng([self.options.seed, 2])
        loop = Loop(synthetic, self.method, self.real, self.compute, generator)
        if saved is not None:
            loop.load_state_dict(saved)
        return loop

    def _stored(self, loop: Loop, recipe: Recipe) -> SyntheticSet:
        return SyntheticSet.from_factors(
            self.storage.parameterization,
            factors=loop.synthetic.numpy_factors(),
            labels=loop.synthetic.numpy_labels(),
            mean=self.training.mean,
            std=self.training.std,
            recipe=recipe,
            classes=self.classes,
            provenance=self._provenance(loop.iteration),
        )

    def _search(self, synthetic: SyntheticSet) -> Recipe:
        network = student(
            default_student(self.real.shape, min(self.options.width, 32)), self.real.shape, self.real.num_classes
        )
        trainer = Trainer(network, self.compute)

        def on_trial(step: int, total: int) -> None:
            if self.on_step:
                self.on_step(Progress("recipe", step, total, None))

        return recipe_search.search(synthetic, self.validation, trainer, seed=self.options.seed, on_trial=on_trial)

    def _iterations(self) -> int | None:
        if self.options.minutes is not None:
            return None
        return self.options.iterations or DEFAULT_ITERATIONS

    def _work(self) -> float:
        """Rough operations of the whole run: decides whether compiling pays."""
        if self.options.minutes is not None:
            return COMPILE_ABOVE_FLOPS * self.options.minutes
        shape = self.training.shape
        network = student(default_student(shape, self.options.width), shape, len(self.classes))
        images = 3 * self.storage.ipc * len(self.classes) + 900
        iterations = self.options.iterations or DEFAULT_ITERATIONS
        return 2.0 * network.multiply_adds * images * iterations * bool(self.method.lr)

    def _search_seconds(self) -> float:
        return 0.0 if self.options.recipe else 0.12 * 60 * (self.options.minutes or 0)

    def _checkpoint(self) -> Checkpoint | None:
        if self.options.output is None:
            return None
        ignored = ("output", "resume", "command", "recipe")
        settings = {k: v for k, v in asdict(replace(self.options, recipe=None)).items() if k not in ignored}
        settings["method"] = repr(self.method)
        settings["data"] = self.fingerprint
        return Checkpoint(Path(self.options.output), settings)

    def _provenance(self, iterations: int) -> dict[str, Any]:
        method = self.options.method
        return {
            "method": method if isinstance(method, str) else type(method).__name__,
            "data": self.fingerprint,
            "seed": self.options.seed,
            "iterations": iterations,
            "edgedd": edgedd.__version__,
            "command": self.options.command[:300],
        }


def _method(options: Options) -> Method:
    """The method, with the networks' width and the kind of labels asked for."""
    method = options.method
    if isinstance(method, str):
        settings = dict(options.settings or {})
        if hasattr(method_named(method), "width"):
            settings.setdefault("width", str(options.width))
        if options.labels in ("hard", "teacher"):
            settings["lr_labels"] = "0"
        method = method_named(method, settings)
    if options.labels == "learned" and not method.lr_labels:
        raise SettingError("this method does not learn labels: choose --labels teacher, or set lr_labels above 0")
    return method
