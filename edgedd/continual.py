"""Class-incremental learning: classes come a step at a time, and of earlier ones a memory of few bytes is left.

The protocol of the continual experiments of DSA and DM (Zhao and Bilen 2021 and 2023), that is, GDumb's (Prabhu et al.
2020): at each step a memory of the step's classes is made from its training images alone and added to what is kept;
then a fresh student is trained on the whole memory and tested on all classes seen so far. Here the device runtime
trains it, every kind of memory has the same bytes a step, and all are trained by one recipe. Which classes come
together is drawn by the seed; pixels are normalised by the mean and deviation of the first step.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedd.errors import SettingError
from edgedd.joining import join
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.students import default_student
from edgedd.synthetic_set import SyntheticSet

if TYPE_CHECKING:
    from edgedd.distillation.memories import Keeping

OnRow = Callable[[dict[str, Any]], None]
Test = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Continual:
    """What is measured: `steps` of equally many classes, kept as `keeping` says, `student` (a name) learns from them.

    `threads` is the number of processor threads that train it; None for as many as there are.
    """

    keeping: "Keeping"
    student: str
    steps: int = 5
    threads: int | None = None


def evaluate_continual(
    data: LabelledImages, how: Continual, seed: int, memories: Sequence[str] | None = None, on_row: OnRow | None = None
) -> list[dict[str, Any]]:
    """All steps with each kind of memory (names of edgedd.distillation.memories.MEMORIES; all by default).

    Returns a row a memory: memory, seed, classes (in the order shown), bytes (of its files together after the last
    step), images (a class), accuracies: after each step, on the classes of each step so far; average (steps,): on all
    classes seen; final, the last of these, and mean, of all of them; forgetting: by how much the last accuracy on each
    earlier step's classes is below the best one before, averaged (Chaudhry et al. 2018).

    Raises SettingError for an unknown memory, or steps that do not divide the classes.
    """
    from edgedd.distillation.memories import MEMORIES, Task

    kinds = list(MEMORIES) if memories is None else list(memories)
    unknown = [name for name in kinds if name not in MEMORIES]
    if unknown:
        raise SettingError(f"unknown memory {unknown[0]!r}, wanted one of: {'; '.join(MEMORIES)}")
    parts = shown(data, how.steps, seed)
    mean, std = parts[0].mean, parts[0].std
    names = max((part.classes for part in parts), key=lambda classes: len(json.dumps(classes, ensure_ascii=False)))
    tasks = [Task(part, mean, std, names=names, seed=seed) for part in parts]
    rows = []
    for name in kinds:
        kept, accuracies = list[SyntheticSet](), list[list[float]]()
        for number, task in enumerate(tasks, start=1):
            kept.append(MEMORIES[name](task, how.keeping))
            accuracies.append(_accuracies(join(kept), parts[:number], how, seed))
        facts = {"memory": name, "seed": seed, "classes": [c for part in parts for c in part.classes]}
        size = {"bytes": sum(each.nbytes for each in kept), "images": kept[0].ipc}
        rows.append(facts | size | summary(accuracies, [len(part.test_labels) for part in parts]))
        if on_row:
            on_row(rows[-1])
    return rows


def continual_of(
    path: str | os.PathLike[str],
    data: str,
    steps: int,
    students: Sequence[str] | None = None,
    *,
    seeds: Sequence[int],
    on_row: Callable[[dict[str, Any], int, int], None],
) -> None:
    """`evaluate_continual` in the form, the bytes and by the recipe of the set at `path`, which is itself not used.

    Each step's synthetic images are made by DM, which matches every class by itself. `on_row(row, done, all)` is told
    of each run. Raises SettingError, BudgetError, FormatError, DataError.
    """
    from edgedd.distillation.memories import MEMORIES, Keeping

    synthetic, loaded = SyntheticSet.load(path), load_data(data)
    if loaded.shape != synthetic.parameterization.shape:
        theirs, ours = ("x".join(map(str, shape)) for shape in (loaded.shape, synthetic.parameterization.shape))
        raise SettingError(f"the data has {theirs} images, the set {ours}: give images of the same size")
    if students and (len(students) > 1 or "," in students[0]):
        raise SettingError("--continual is for one student: name one, or leave --students out")
    shown(loaded, steps, 0)
    keeping = Keeping(synthetic.parameterization, synthetic.nbytes // steps, synthetic.recipe)
    how, done = Continual(keeping, students[0] if students else default_student(loaded.shape), steps), 0

    def count(row: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        on_row(row, done, len(seeds) * len(MEMORIES))

    for seed in seeds:
        evaluate_continual(loaded, how, seed, on_row=count)


def shown(data: LabelledImages, steps: int, seed: int) -> list[LabelledImages]:
    """What each step shows: equally many of the classes, in an order drawn by the seed. Raises SettingError."""
    if not 1 <= steps <= data.num_classes // 2 or data.num_classes % steps:
        raise SettingError(
            f"{data.num_classes} classes in {steps} steps, wanted equally many in each and at least two: choose "
            "another number of steps"
        )
    order = np.random.default_rng([seed, 6]).permutation(data.num_classes)
    return [_of_classes(data, classes) for classes in np.split(order, steps)]


def _of_classes(data: LabelledImages, classes: np.ndarray) -> LabelledImages:
    """The images of these classes, renumbered in this order."""
    number = np.full(data.num_classes, -1)
    number[classes] = np.arange(len(classes))
    parts: dict[str, Any] = {}
    for part in ("train", "test"):
        labels = number[getattr(data, f"{part}_labels")]
        parts |= {f"{part}_images": getattr(data, f"{part}_images")[labels >= 0]}
        parts |= {f"{part}_labels": labels[labels >= 0]}
    return LabelledImages(**parts, classes=tuple(data.classes[c] for c in classes), name=data.name)


def summary(accuracies: Sequence[Sequence[float]], counts: Sequence[int]) -> dict[str, Any]:
    """accuracies, average, final, mean and forgetting; `counts` are the test images of each step."""
    average = [float(np.average(row, weights=counts[: len(row)])) for row in accuracies]
    last, earlier = accuracies[-1], range(len(accuracies) - 1)
    drops = [max(row[step] for row in accuracies[step:-1]) - last[step] for step in earlier]
    return {
        "accuracies": [list(row) for row in accuracies],
        "average": average,
        "final": average[-1],
        "mean": float(np.mean(average)),
        "forgetting": float(np.mean(drops)) if drops else 0.0,
    }


def _accuracies(memory: SyntheticSet, parts: Sequence[LabelledImages], how: Continual, seed: int) -> list[float]:
    """Of a student trained on `memory` from scratch, on each step's test images; it chooses among all classes seen."""
    from edgedd.device import Student
    from edgedd.exporting import export

    with tempfile.TemporaryDirectory() as folder:
        export(memory, Path(folder) / "bundle", student=how.student)
        student = Student.load(Path(folder) / "bundle", threads=how.threads)
        student.fit(seed=seed)
        found, first = list[float](), 0
        for part in parts:
            found.append(student.evaluate(part.test_images, part.test_labels + first))
            first += part.num_classes
        return found
