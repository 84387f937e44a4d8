"""`edgedd.distill`: from real images to a synthetic set within a byte budget."""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import edgedd
from edgedd.atomic import only_writer, refuse_unwritable
from edgedd.augmentation import Augmentation
from edgedd.distillation import auto, compact_budget, ranks, recipe_search, run_length
from edgedd.distillation.allowance import Allowance
from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.compute import Compute, within_memory
from edgedd.distillation.filing import Filing
from edgedd.distillation.for_target import for_target
from edgedd.distillation.forecast import forecast
from edgedd.distillation.gains import Gains
from edgedd.distillation.loop import Length, Loop, OnStep, Progress
from edgedd.distillation.method_options import chooses_augmentation, decided, method_of
from edgedd.distillation.options import Options
from edgedd.distillation.rate import Rate
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Trainer
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.planning import planner
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

WIDTH = 64
log = logging.getLogger("edgedd")


@within_memory()
def distill(
    data: "LabelledImages | str | os.PathLike[str]", *, on_step: OnStep | None = None, **options: Any
) -> SyntheticSet:
    """Condense labelled images into a synthetic set; keyword arguments are the fields of `Options`.

    Settings are chosen on a validation split of the training images; the test images are never read. The same data,
    options and seed give the same file on the same machine.

    Raises:
        SettingError, BudgetError, DataError: one line each; also when another process writes the same output or the
            GPU's memory is full.
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
        searches = options.recipe is None
        self.allowance = Allowance(options.minutes, searches, options.method == auto.NAME, data.shape[1:])
        self.options = options
        self.on_step = on_step if ranks.speaks() else None
        self.method = method_of(options)
        if options.labels == "auto":
            self.options = replace(options, labels=getattr(self.method, "labels", "auto"))
        self.classes, self.fingerprint = data.classes, data.fingerprint
        provenance = self._provenance()
        self.auto = options.method == auto.NAME
        wanted = planner.parameterization_for(
            data.shape,
            options.parameterization or getattr(self.method, "parameterization", None) or auto.kind(options),
            options.rank,
            options.bits,
            options.subspaces,
            formation=options.formation,
            half=options.half or None,
        )
        self.compact = planner.stores_compact(wanted)
        self.storage = planner.storage(
            wanted,
            data.classes,
            provenance,
            budget_bytes=options.bytes,
            ipc=options.ipc,
            recipe=options.recipe or planner.LONGEST_RECIPE,
        )
        if self.auto:
            images = self.storage.ipc * data.num_classes
            self.method = auto.sized(self.method, options, data.shape, images)  # type: ignore[arg-type]
        split_seed = getattr(self.method, "split_seed", lambda fingerprint, seed: seed)
        self.training, held_out = data.split(seed=split_seed(data.fingerprint, options.seed))
        self.validation = recipe_search.Validation.drawn(held_out, options.seed)
        packed = self.compact or options.compact
        self.filing = Filing(self.training.mean, self.training.std, data.classes, provenance, packed)
        self.ranks = ranks.join(options.device, data.num_classes)
        work = run_length.work(self.method, self._width, options, self.storage, self.classes)
        compute = Compute.for_work(options.device, work)
        self.compute = replace(compute, ranks=self.ranks)
        self.real = RealImages.of(self.training, self.compute)
        narrow = student(default_student(data.shape, min(self._width, run_length.NARROW)), data.shape, data.num_classes)
        self.trainer = Trainer(narrow, self.compute)
        self._gains = Gains(self._score)
        self._kept = np.empty(0, np.int64)  # rows of the real images that the set starts from

    def run(self) -> SyntheticSet:
        """All stages; the file is written when `output` is given. Other ranks than 0 have no searched recipe."""
        checkpoint = self._checkpoint()
        saved = checkpoint.load() if checkpoint and self.options.resume else None
        if self.auto and self.on_step and self.options.bytes:
            log.warning(self._forecast(self.options.bytes))
        loop = self._start(saved)
        loop.run(self._length(), checkpoint if self.ranks.main else None, self.on_step)
        if not self.ranks.main:
            return self.filing.file(loop.synthetic, Recipe(), loop.iteration)
        synthetic = self._finished(loop)
        if self.options.output is not None:
            synthetic.save(self.options.output)
        if checkpoint:
            checkpoint.remove()
        return synthetic

    def _forecast(self, budget_bytes: int) -> str:
        shape, classes = self.storage.parameterization.shape, len(self.classes)
        return forecast(budget_bytes, self.options.minutes, shape, classes, device=self.options.device)

    def _length(self) -> Length:
        """Until what is reserved of the minutes for the searches after distilling, and checks for gains on the way."""
        options = self.options
        if options.minutes is not None:
            return Length(deadline=self.allowance.distilling_ends(self.trainer.seconds_a_step))
        usual = run_length.default_iterations(self.method, self.storage, len(self.classes), options.device)
        return Length(options.iterations or usual)

    def _finished(self, loop: Loop) -> SyntheticSet:
        """Within the bytes and with its recipe; `auto` may find that the set was better as it started."""
        synthetic, options = loop.synthetic, self.options
        if self.compact and options.bytes and loop.iteration:  # as it started it fits already
            compact_budget.trim(synthetic, partial(self.filing.most_bytes, synthetic), options.bytes)
        recipe = options.recipe or (auto.recipe(self._seen) if self.auto else Recipe())
        found = self.filing.file(synthetic, recipe, loop.iteration)
        if loop.start is not None and loop.iteration:
            search = recipe_search.Search(self.validation, self.trainer, [options.seed, 7], 2 + recipe_search.FINALISTS)
            search.on_trial = self._reporter("choice")
            search.deadline = self.allowance.search_begins(self.trainer.seconds_a_step)
            found = auto.better(found, self.filing.file(loop.start, recipe, 0), search)
        if options.recipe is None:
            found = self._with_recipe(found, getattr(loop.state, "recipes", list)())
        return found

    @property
    def _seen(self) -> Augmentation:
        """What the networks that distilled saw."""
        return getattr(self.method, "augmentation", None) or Augmentation()

    def _start(self, saved: dict[str, Any] | None) -> Loop:
        """The loop before its first step, or as it was saved."""
        form, count = self.storage.parameterization, self.storage.ipc * len(self.classes)
        sharing = self.method.networks if self.auto else 1  # type: ignore[attr-defined]
        teacher = Teacher(self.real, self.options, self.compute, self.on_step, sharing=sharing)
        if saved is None:
            synthetic, chosen = self._first(teacher)
        else:
            synthetic, chosen = TrainableSet.blank(form, count, len(self.classes), self.compute.device), saved["chosen"]
        self.method = decided(self.method, chosen)
        generator = np.random.default_rng([self.options.seed, 2])
        loop = Loop(synthetic, self.method, self.real, self.compute, generator, chosen=chosen)
        if self.compact:
            synthetic.step = synthetic.step or compact_budget.STEP
            size = partial(self.filing.most_bytes, synthetic)
            loop.rate = Rate(compact_budget.target(synthetic, size, self.options.bytes))
        if self.auto:
            loop.start = synthetic.copied()
            if saved is None:
                auto.share(teacher, loop.state)
        loop.watch = self._watch
        if saved is not None:
            loop.load_state_dict(saved)
        if self.ranks.size > 1:
            loop.load_state_dict(self.ranks.agreed(loop.state_dict()))
        return loop

    def _first(self, teacher: Teacher) -> tuple[TrainableSet, dict[str, Any]]:
        """The set as it starts, within the bytes, and the fields of the method that are chosen for it."""
        if teacher.trainer.network == self.trainer.network:
            teacher.trainer = self.trainer
        rows = self._kept = self._rows(teacher, np.random.default_rng([self.options.seed, 1]))
        images = self.real.normalised(rows)
        form, logits = self.storage.parameterization, teacher.start_logits(images)
        synthetic = TrainableSet.start(form, images.cpu().numpy(), logits, self.compute.device)
        if self.compact and self.options.bytes:
            compact_budget.fit_step(synthetic, partial(self.filing.most_bytes, synthetic), self.options.bytes)
        chosen: dict[str, Any] = {}
        if chooses_augmentation(self.method):
            chosen["augmentation"] = self._augmentation(synthetic, teacher, rows).as_dict()
        if self.auto:
            seconds = self.ranks.agreed(self.allowance.left_to_distil(self.trainer.seconds_a_step))
            chosen |= auto.chosen(self.method, self.options, synthetic, teacher, seconds)  # type: ignore[arg-type]
        return synthetic, self.ranks.agreed(chosen)

    def _watch(self, loop: Loop) -> None:
        """Between iterations: lead the codes to what the labels leave of the bytes; `auto` looks whether it gains."""
        synthetic, budget = loop.synthetic, self.options.bytes
        if loop.rate and budget:
            size = partial(self.filing.most_bytes, synthetic)
            compact_budget.steer(loop.rate, loop.iteration, synthetic, size, budget)
        if self.auto:
            self._gains(loop)

    def _score(self, loop: Loop) -> float:
        """Validation accuracy of the set as it would be stored now, of one student, the same each time."""
        recipe = auto.recipe(self._seen)
        search = recipe_search.Search(self.validation, self.trainer, [self.options.seed, 6], 1)
        score: float = self.ranks.agreed(search.score(self.filing.file(loop.synthetic, recipe, loop.iteration)))
        return score

    def _rows(self, teacher: Teacher, chooser: np.random.Generator) -> np.ndarray:
        """Real images that the set starts from, in class-major order: the method's choice, or random ones."""
        ipc = self.storage.ipc
        if hasattr(self.method, "choose"):
            rows: np.ndarray = self.method.choose(self.real, ipc, teacher, chooser)
            return rows
        if self.auto:
            return auto.START.choose(self.real, ipc, teacher, chooser)
        return self.real.rows_at_random(ipc, chooser)

    @property
    def _width(self) -> int:
        """Channels of the networks that distil."""
        return int(getattr(self.method, "width", self.options.width or WIDTH))

    def _augmentation(self, synthetic: TrainableSet, teacher: Teacher, rows: np.ndarray) -> Augmentation:
        """For the networks that distil: what suits the start of the set, these `rows`, on validation images."""
        if self.auto:
            return auto.augmentation(teacher, self.validation)
        common: dict[str, Any] = {"seed": [self.options.seed, 4], "on_trial": self._reporter("augmentation")}
        start = self.filing.file(synthetic, Recipe(), 0)
        return recipe_search.choose_augmentation(start, self._judges(rows), self.trainer, **common)

    def _with_recipe(self, synthetic: SyntheticSet, learned: list[Recipe]) -> SyntheticSet:
        """Searched by the validation split, and images that the set does not have as they are."""
        common: dict[str, Any] = {"seed": [self.options.seed, 5], "on_trial": self._reporter("recipe")}
        common |= {
            "wide": self.auto,
            "seen": self.auto and self._seen != Augmentation(),
            "deadline": self.allowance.end(),
        }
        judges = self._judges(self._kept[: 0 if synthetic.provenance["iterations"] else None])
        return recipe_search.choose_recipe(synthetic, judges, self.trainer, learned=learned, **common)

    def _judges(self, kept: np.ndarray) -> recipe_search.Validation:
        """Of recipes for a set that has these rows of the training images as they are."""
        real = self.training
        return self.validation.filled(real.train_images, real.train_labels, kept, self.options.seed)

    def _reporter(self, stage: str) -> Callable[[int, int], None]:
        def on_trial(step: int, total: int) -> None:
            if self.on_step:
                self.on_step(Progress(stage, step, total, None))

        return on_trial

    def _checkpoint(self) -> Checkpoint | None:
        if self.options.output is None:
            return None
        ignored = ("output", "resume", "command", "recipe", "experts")  # the method names its experts
        settings = {k: v for k, v in asdict(replace(self.options, recipe=None)).items() if k not in ignored}
        settings["method"] = repr(self.method)
        settings["data"] = self.fingerprint
        return Checkpoint(Path(self.options.output), settings)

    def _provenance(self) -> dict[str, Any]:
        """With the most iterations that a run is planned for."""
        method = self.options.method
        return {
            "method": method if isinstance(method, str) else type(method).__name__,
            "data": self.fingerprint,
            "seed": self.options.seed,
            "iterations": 999_999_999,
            "edgedd": edgedd.__version__,
            "command": self.options.command[:300],
        }
