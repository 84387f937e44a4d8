"""`edgedd.plan`: from a board's budgets to a form, images per class, threads and micro-batch, with what they cost.

Every form of the accuracy sweep is stored with as many images as the bytes hold and placed on the board (threads and
images at once that fit its memory); of those that fit, the one with the highest measured accuracy is taken. Memory and
time need the training graph, which is built for the purpose: that takes the onnx package ([distill]).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import edgedd
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import SET
from edgedd.errors import BudgetError, EdgeddError, MissingExtra, SettingError
from edgedd.planning import planner
from edgedd.planning.choice import Candidate, candidates
from edgedd.planning.placement import GraphFacts, Placement, load_of, place
from edgedd.planning.question import Question, Shape, Wanted
from edgedd.planning.result import Alternative, Plan
from edgedd.planning.target import training_target
from edgedd.planning.training_cost import step_flops
from edgedd.recipe import Recipe
from edgedd.storage.set_metadata import MAX_CLASSES
from edgedd.students import default_student
from edgedd.synthetic_set import SyntheticSet

if TYPE_CHECKING:
    from edgedd.labelled_images import LabelledImages


@dataclass(frozen=True)
class Tried:
    """A form stored and placed on the board, as far as it went."""

    candidate: Candidate
    storage: planner.Storage | None = None
    placement: Placement | None = None
    error: EdgeddError | None = None


def plan(
    *,
    target: str,
    image_shape: Shape | None = None,
    num_classes: int | None = None,
    data: "LabelledImages | str | None" = None,
    student: str | None = None,
    mode: str = "full",
    **wanted: Any,
) -> Plan:
    """The best form that fits a board, and how the board trains from it.

    Args:
        target: a board (see `edgedd.targets`), a path of a profile, or "this-machine".
        image_shape, num_classes: (C, H, W) and K; or `data`, whose names of classes then make file_bytes exact.
        student: the network; by default the ConvNet of width 64 that suits the images.
        mode: what is trained: "full", "head", "bias" or "last-<k>".
        wanted: fields of `Wanted`, which the plan keeps to.

    Raises:
        TargetError: an unknown board, or one that only infers.
        BudgetError: nothing fits; says the smallest that would, part by part.
        SettingError: options that contradict each other or do not exist.
        MissingExtra: the onnx package is not there.
    """
    known = [option.name for option in fields(Wanted)]
    for name in wanted:
        if name not in known:
            raise SettingError(f"plan has no option {name!r}, wanted one of {', '.join(known)}")
    shape, classes = _images(image_shape, num_classes, data)
    return planned(
        Question(training_target(target), shape, classes, student or default_student(shape), mode, Wanted(**wanted))
    )


def plan_bundle(bundle: str | os.PathLike[str], target: str, *, student: str | None = None, **wanted: Any) -> Plan:
    """How a board trains a bundle that is there already; `wanted` may hold threads and micro_batch.

    `student` is one of the bundle's, by default its first.

    Takes what a device has: the training graph says all that is needed. Raises as `plan` does, and BundleError.
    """
    from edgedd.device.planned_bundle import facts_of_bundle

    board, opened, how = training_target(target), Bundle.load(bundle, student=student), Wanted(**wanted)
    synthetic = SyntheticSet.load(opened.file(SET))
    form, classes = synthetic.parameterization, opened.classes
    how = replace(how, recipe=synthetic.recipe, ipc=synthetic.ipc)
    question = Question(board, form.shape, classes, opened.student, opened.mode, how)
    facts = facts_of_bundle(opened)
    load = load_of(form, synthetic.count, len(classes), synthetic.recipe)
    placement = place(facts, load, board, threads=how.threads, micro_batch=how.micro_batch)
    storage = planner.Storage(form, synthetic.ipc, synthetic.nbytes)
    only = Tried(Candidate(form, None, "the bundle's own set"), storage, placement)
    return _plan(question, only, [only], lambda _: facts)


def planned(question: Question, provenance: dict[str, Any] | None = None) -> Plan:
    """The answer; `provenance` is what the file will say of itself, where that is known already."""
    facts = cache(_facts_of_kind(question))
    said = provenance or _likely_provenance()
    tried = [_tried(question, candidate, said, facts) for candidate in _forms(question)]
    fitting = [each for each in tried if each.placement]
    if not fitting:
        raise _nothing_fits(tried)
    best = max(fitting, key=lambda each: -1.0 if each.candidate.accuracy is None else each.candidate.accuracy)
    return _plan(question, best, tried, facts)


def _forms(question: Question) -> list[Candidate]:
    """Forms of the sweep that keep to what is wanted; the one asked for, or the default, where none does."""
    shape, wanted = question.shape, question.wanted.form
    named = {"kind" if name == "parameterization" else name: value for name, value in wanted.items()}
    swept = [
        candidate
        for candidate in candidates(shape, len(question.classes), question.budget_bytes)
        if named.items() <= candidate.form.as_dict().items()
    ]
    w = question.wanted
    default = planner.parameterization_for(
        shape, w.parameterization, w.rank, w.bits, w.subspaces, formation=w.formation, half=w.half
    )
    if any(candidate.form == default for candidate in swept):
        return swept
    why = "what was asked for" if wanted else "the default"
    return [*swept, Candidate(default, None, f"{why}: nothing was measured for it")]


def _tried(
    question: Question,
    candidate: Candidate,
    provenance: dict[str, Any],
    facts: Callable[[str], GraphFacts],
) -> Tried:
    """Stored in the bytes, then placed in the memory."""
    wanted, form = question.wanted, candidate.form
    storage = None
    try:
        storage = planner.storage(
            form,
            question.classes,
            provenance,
            budget_bytes=question.budget_bytes,
            ipc=wanted.ipc,
            recipe=wanted.recipe or planner.LONGEST_RECIPE,
        )
        load = load_of(form, storage.ipc * len(question.classes), len(question.classes), question.recipe)
        how = {"threads": wanted.threads, "micro_batch": wanted.micro_batch}
        return Tried(candidate, storage, place(facts(form.kind), load, question.target, **how))
    except BudgetError as error:
        return Tried(candidate, storage, None, error)
    except SettingError as error:
        if storage is None and wanted.ipc is not None:  # this form cannot store so few or such a number of images
            return Tried(candidate, None, None, error)
        raise


def _plan(question: Question, best: Tried, tried: Sequence[Tried], facts: Callable[[str], GraphFacts]) -> Plan:
    storage, placement, recipe = best.storage, best.placement, question.recipe
    assert storage and placement
    batch = min(recipe.batch_size, storage.ipc * len(question.classes))
    return Plan(
        target=question.target.name,
        student=question.student,
        mode=question.mode,
        image_shape=question.shape,
        num_classes=len(question.classes),
        parameterization=storage.parameterization,
        ipc=storage.ipc,
        file_bytes=storage.predicted_bytes,
        storage_bytes=question.budget_bytes,
        threads=placement.threads,
        micro_batch=placement.micro_batch,
        memory=placement.memory,
        process_ram_bytes=question.target.process_ram_bytes,
        steps=recipe.steps,
        batch=batch,
        flops=recipe.steps * step_flops(facts(storage.parameterization.kind).work, batch),
        seconds=recipe.steps * placement.step_seconds,
        accuracy=best.candidate.accuracy,
        basis=best.candidate.basis,
        alternatives=tuple(_alternative(each, best, recipe) for each in tried),
    )


def _alternative(each: Tried, best: Tried, recipe: Recipe) -> Alternative:
    storage, placement = each.storage, each.placement
    return Alternative(
        form=each.candidate.form,
        ipc=None if storage is None else storage.ipc,
        file_bytes=None if storage is None else storage.predicted_bytes,
        peak_bytes=None if placement is None else placement.memory.total,
        seconds=None if placement is None else recipe.steps * placement.step_seconds,
        accuracy=each.candidate.accuracy,
        why_not="" if each is best else _why_not(each, best),
    )


def _why_not(each: Tried, best: Tried) -> str:
    if each.error:
        return ("not stored: " if each.storage is None else "does not fit memory: ") + str(each.error)
    if each.candidate.accuracy is None or best.candidate.accuracy is None:
        return each.candidate.basis
    return f"{100 * (best.candidate.accuracy - each.candidate.accuracy):.1f} points less accurate"


def _nothing_fits(tried: Sequence[Tried]) -> EdgeddError:
    """The refusal of the form that came furthest; of those that fail alike, the one that stands last: the default."""
    furthest = [each for each in tried if each.storage] or list(tried)
    error = furthest[-1].error
    assert error
    return error


def _facts_of_kind(question: Question) -> Callable[[str], GraphFacts]:
    """Of the training graph by kind of form: what is decoded makes little of it, the rank nothing."""

    def facts(kind: str) -> GraphFacts:
        try:
            from edgedd.exporting.training_facts import facts_for
        except ModuleNotFoundError as error:
            raise MissingExtra("onnx", "planning without a bundle", "distill") from error
        form = planner.parameterization_for(question.shape, kind, None, None)
        return facts_for(question.student, form, len(question.classes), question.mode, question.wanted.recipe)

    return facts


def _images(
    shape: Shape | None, num_classes: int | None, data: "LabelledImages | str | None"
) -> tuple[Shape, tuple[str, ...]]:
    """Shape and names of classes, from the data or, made up, from the counts."""
    if data is not None:
        from edgedd.labelled_images import LabelledImages, load_data

        if shape is not None or num_classes is not None:
            raise SettingError("both data and a shape or number of classes are given: leave one out")
        loaded = data if isinstance(data, LabelledImages) else load_data(data)
        return loaded.shape, loaded.classes
    if shape is None or num_classes is None:
        raise SettingError("neither data nor a shape and a number of classes are given: say what the images are")
    planner.parameterization_for(shape, "pixels", None, None)
    if not 2 <= num_classes <= MAX_CLASSES:
        raise SettingError(f"{num_classes} classes, wanted 2 to {MAX_CLASSES}")
    return shape, tuple(f"class {k}" for k in range(num_classes))


def _likely_provenance() -> dict[str, Any]:
    """As long as what `edgedd distill` writes of a usual command."""
    command = "edgedd distill --data images.npz --target raspberry-pi-zero-2w --method frepo --seed 0"
    said = {"method": "frepo", "data": "0" * 16, "seed": 0, "iterations": 999_999_999}
    return said | {"edgedd": edgedd.__version__, "command": command}
