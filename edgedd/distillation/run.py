"""`edgedd.distill`: from real images to a synthetic set within a byte budget."""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgedd
from edgedd import planner
from edgedd.atomic import only_writer, refuse_unwritable
from edgedd.augmentation import Augmentation
from edgedd.distillation import ranks, recipe_search
from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.compute import Compute
from edgedd.distillation.for_target import for_target
from edgedd.distillation.loop import Length, Loop, OnStep, Progress
from edgedd.distillation.methods import Method, image_lr, method_named
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Trainer
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

COMPILE_ABOVE_FLOPS = 4e12
DEFAULT_IMAGE_PASSES = 1_250_000
VALIDATION_IMAGES = 5000
WIDTH = 64
NARROW = 32


def distill(
    data: "LabelledImages | str | os.PathLike[str]", *, on_step: OnStep | None = None, **options: Any
) -> SyntheticSet:
    """Condense labelled images into a synthetic set; keyword arguments are the fields of `Options`.

    Settings are chosen on a validation split of the training images; the test images are never read. The same data,
    options and seed give the same file on the same machine.

    Raises:
        SettingError, BudgetError, DataError: one line each; also when another process writes the same output.
    """
    for name in options:
        if name not in Options.names():
            raise SettingError(f"distill has no option {name!r}, wanted one of {', '.join(Options.names())}")
    chosen = Options(**options)
    if chosen.output is not None:
        refuse_unwritable(chosen.output)
    with only_writer(chosen.output) if chosen.output is not None and ranks.speaks() else nullcontext():
        loaded = data if isinstance(data, LabelledImages) else load_data(data)
        return Distillation(loaded, for_target(chosen, loaded), on_step).run()


class Distillation:
    """One run: plan, teacher, start, outer loop, recipe, file."""

    def __init__(self, data: LabelledImages, options: Options, on_step: OnStep | None) -> None:
        self.begun = time.monotonic()
        self.options = options
        self.on_step = on_step if ranks.speaks() else None
        self.method = _method(options)
        if options.labels == "auto":
            self.options = replace(options, labels=getattr(self.method, "labels", "auto"))
        self.classes, self.fingerprint = data.classes, data.fingerprint
        wanted = planner.parameterization_for(
            data.shape,
            options.parameterization or getattr(self.method, "parameterization", None),
            options.rank,
            options.bits,
            options.subspaces,
            formation=options.formation,
            half=options.half or None,
        )
        self.storage = planner.storage(
            wanted,
            data.classes,
            self._provenance(999_999_999),
            budget_bytes=options.bytes,
            ipc=options.ipc,
            recipe=options.recipe or planner.LONGEST_RECIPE,
        )
        split_seed = getattr(self.method, "split_seed", lambda fingerprint, seed: seed)
        self.training, held_out = data.split(seed=split_seed(data.fingerprint, options.seed))
        some = np.random.default_rng([options.seed, 3]).permutation(len(held_out[1]))[:VALIDATION_IMAGES]
        self.validation = recipe_search.Validation(held_out[0][some], held_out[1][some])
        self.ranks = ranks.join(options.device, data.num_classes)
        compute = Compute.choose(options.device, compiled=self._work() > COMPILE_ABOVE_FLOPS)
        self.compute = replace(compute, ranks=self.ranks)
        self.real = RealImages.of(self.training, self.compute)
        narrow = student(default_student(data.shape, min(self._width, NARROW)), data.shape, data.num_classes)
        self.trainer = Trainer(narrow, self.compute)

    def run(self) -> SyntheticSet:
        """All stages; the file is written when `output` is given. Other ranks than 0 have no searched recipe."""
        checkpoint = self._checkpoint()
        saved = checkpoint.load() if checkpoint and self.options.resume else None
        loop = self._start(saved)
        deadline = None
        if self.options.minutes is not None:
            deadline = self.begun + 60 * self.options.minutes - self._search_seconds()
        loop.run(Length(self._iterations(), deadline), checkpoint if self.ranks.main else None, self.on_step)
        synthetic = self._stored(loop.synthetic, loop.iteration, self.options.recipe or Recipe())
        if not self.ranks.main:
            return synthetic
        if self.options.recipe is None:
            synthetic = self._with_recipe(synthetic, getattr(loop.state, "recipes", list)())
        if self.options.output is not None:
            synthetic.save(self.options.output)
        if checkpoint:
            checkpoint.remove()
        return synthetic

    def _start(self, saved: dict[str, Any] | None) -> Loop:
        form, device = self.storage.parameterization, self.compute.device
        if saved is None:
            chooser = np.random.default_rng([self.options.seed, 1])
            teacher = Teacher(self.real, self.options, self.compute, self.on_step)
            images = self.real.normalised(self._rows(teacher, chooser))
            logits = teacher.start_logits(images)
            synthetic = TrainableSet.start(form, images.cpu().numpy(), logits, device)
            augmentation = Augmentation(**self.ranks.agreed(self._augmentation(synthetic).as_dict()))
        else:
            count = self.storage.ipc * self.real.num_classes
            synthetic = TrainableSet.blank(form, count, self.real.num_classes, device)
            augmentation = Augmentation(**saved["augmentation"])
        if _chooses_augmentation(self.method):
            self.method = replace(self.method, augmentation=augmentation)  # type: ignore[type-var]
        generator = np.random.default_rng([self.options.seed, 2])
        loop = Loop(synthetic, self.method, self.real, self.compute, generator)
        if saved is not None:
            loop.load_state_dict(saved)
        if self.ranks.size > 1:
            loop.load_state_dict(self.ranks.agreed(loop.state_dict()))
        return loop

    def _rows(self, teacher: Teacher, chooser: np.random.Generator) -> np.ndarray:
        """Real images that the set starts from, in class-major order: the method's choice, or random ones."""
        ipc = self.storage.ipc
        if hasattr(self.method, "choose"):
            rows: np.ndarray = self.method.choose(self.real, ipc, teacher, chooser)
            return rows
        return np.concatenate([self.real.sample_class(c, ipc, chooser) for c in range(self.real.num_classes)])

    @property
    def _width(self) -> int:
        """Channels of the networks that distil."""
        return int(getattr(self.method, "width", self.options.width or WIDTH))

    def _stored(self, synthetic: TrainableSet, iterations: int, recipe: Recipe) -> SyntheticSet:
        return SyntheticSet.from_factors(
            self.storage.parameterization,
            factors=synthetic.numpy_factors(),
            labels=synthetic.numpy_labels(),
            mean=self.training.mean,
            std=self.training.std,
            recipe=recipe,
            classes=self.classes,
            provenance=self._provenance(iterations),
        )

    def _augmentation(self, synthetic: TrainableSet) -> Augmentation:
        """For the networks that distil: what suits the start of the set on the validation split."""
        if not _chooses_augmentation(self.method):
            return Augmentation()
        start = self._stored(synthetic, 0, Recipe())
        common: dict[str, Any] = {"seed": [self.options.seed, 4], "on_trial": self._reporter("augmentation")}
        return recipe_search.choose_augmentation(start, self.validation, self.trainer, **common)

    def _with_recipe(self, synthetic: SyntheticSet, learned: list[Recipe]) -> SyntheticSet:
        common: dict[str, Any] = {"seed": [self.options.seed, 5], "on_trial": self._reporter("recipe")}
        return recipe_search.choose_recipe(synthetic, self.validation, self.trainer, learned=learned, **common)

    def _reporter(self, stage: str) -> Callable[[int, int], None]:
        def on_trial(step: int, total: int) -> None:
            if self.on_step:
                self.on_step(Progress(stage, step, total, None))

        return on_trial

    def _iterations(self) -> int | None:
        if self.options.minutes is not None:
            return None
        return self.options.iterations or self._default_iterations()

    def _default_iterations(self) -> int:
        """As many as make a run of some ten minutes on two cores at CIFAR-10's size; fewer for larger sets."""
        return int(np.clip(DEFAULT_IMAGE_PASSES // self._image_passes(2), 300, 5000))

    def _image_passes(self, per_image: int) -> int:
        """Images that pass a network in an iteration: what the method says, or FRePo's."""
        ipc, num_classes = self.storage.ipc, len(self.classes)
        if hasattr(self.method, "image_passes"):
            stored = max(1, ipc // self.storage.parameterization.per_stored)
            return int(self.method.image_passes(stored, num_classes))
        return per_image * ipc * num_classes + 900

    def _work(self) -> float:
        """Rough operations of the whole run: decides whether compiling pays."""
        shape, classes = self.training.shape, len(self.classes)
        network, narrow = (student(default_student(shape, width), shape, classes) for width in (self._width, NARROW))
        iterations = self.options.iterations or self._default_iterations()
        moves = bool(image_lr(self.method, self.storage.ipc))
        distilling = network.multiply_adds * self._image_passes(3) * iterations * moves
        trials = 0 if self.options.recipe else recipe_search.recipe_trials(*shape[1:])
        side_work = 3 * 128 * narrow.multiply_adds * (1000 + trials * recipe_search.TRIAL_STEPS)
        return 2.0 * (distilling + side_work)

    def _search_seconds(self) -> float:
        return 0.0 if self.options.recipe else 0.2 * 60 * (self.options.minutes or 0)

    def _checkpoint(self) -> Checkpoint | None:
        if self.options.output is None:
            return None
        ignored = ("output", "resume", "command", "recipe", "experts")  # the method names its experts
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
        if hasattr(method_named(method), "width") and options.width is not None:
            settings.setdefault("width", str(options.width))
        if options.contrastive is not None:
            settings.setdefault("contrastive", str(options.contrastive))
        if options.labels in ("hard", "teacher"):
            settings["lr_labels"] = "0"
        method = method_named(method, settings)
    elif options.contrastive is not None:
        raise SettingError("contrastive is for named methods: set the field of the method object instead")
    if options.experts is not None:
        if not hasattr(method, "experts"):
            raise SettingError("this method reads no experts: leave --experts out, or choose mtt, datm or lss")
        method = replace(method, experts=os.fspath(options.experts))  # type: ignore[type-var]
    if options.labels == "learned" and not method.lr_labels:
        raise SettingError("this method does not learn labels: choose --labels teacher, or set lr_labels above 0")
    return method


def _chooses_augmentation(method: Method) -> bool:
    return getattr(method, "augmentation", Augmentation()) is None
