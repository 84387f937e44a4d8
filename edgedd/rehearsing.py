"""`edgedd train --new-data`: a bundle's student learns from new images and rehearses on the bundle's set."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.atomic import only_writer, refuse_unwritable
from edgedd.bundles.files import WEIGHTS
from edgedd.device import Student
from edgedd.device.rehearsal import Rehearsal, RehearsalResult
from edgedd.errors import SettingError
from edgedd.labelled_images import load_data
from edgedd.new_images import new_images

OnStep = Callable[[str, int, int, float | None], None]
BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class NewData:
    """What is learned from and how.

    Attributes:
        path: of the new images, see edgedd.new_images; a class that the student does not know takes a spare output.
        weights: where learning starts; by default the bundle's own weights, or a training from the set.
        state: a file that keeps the images for the next time: what it holds is taken up again, and it is written anew.
        ratio: share of new images in a batch; None: by their classes, see `Rehearsal.fit`.
        buffer_bytes: of the images that are kept at most; None for that of `state`, or 1 MiB.
    """

    path: Path
    weights: Path | None = None
    state: Path | None = None
    ratio: float | None = None
    buffer_bytes: int | None = None


def rehearse_bundle(
    bundle: Path,
    output: Path,
    new: NewData,
    *,
    seed: int = 0,
    data: str | None = None,
    on_step: OnStep | None = None,
    **runtime: Any,
) -> dict[str, Any]:
    """Learn from new images, save the weights with the names of new classes, and tell accuracies before and after.

    They are told on what is held out or, with `data`, on its test images of the classes that the student then knows.
    `runtime` is how `Student.load` opens and runs the student.
    """
    for path in (output, new.state):
        if path is not None:
            refuse_unwritable(path)
    student = Student.load(bundle, **runtime)
    told = on_step or (lambda *_: None)
    taken_up = new.state is not None and new.state.exists()
    with only_writer(output):
        rehearsal = _start(student, new, seed)
        for images, names in new_images(new.path, student.bundle.image_shape, rehearsal.classes):
            rehearsal.add(images, names)
        test = None if data is None else known_test_images(data, rehearsal.classes)
        if not (student.bundle.holds(WEIGHTS) or new.weights or taken_up):
            student.fit(seed, on_step=lambda step, steps, loss: told("train", step, steps, loss))
        added = rehearsal.classes[len(student.classes) :]
        result = rehearsal.fit(
            ratio=new.ratio,
            test=test,
            on_step=lambda step, steps, loss: told("rehearse", step, steps, loss),
        )
        student.save(output)
        if new.state is not None:
            rehearsal.save(new.state)
    return _row(rehearsal, result, added, seed, output)


def _start(student: Student, new: NewData, seed: int) -> Rehearsal:
    """The rehearsal, as it was kept or a new one, with a student that has the weights that are given."""
    if new.state is not None and new.state.exists():
        if new.weights is not None or new.buffer_bytes is not None:
            raise SettingError(f"{new.state} holds weights and a buffer: leave --weights and --buffer-bytes out")
        return Rehearsal.load(new.state, student)
    if new.weights is not None:
        student.load_weights(new.weights)
    size = BUFFER_BYTES if new.buffer_bytes is None else new.buffer_bytes
    return Rehearsal(student, buffer_bytes=size, seed=seed)


def known_test_images(data: str, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Test images of `data`, those of the `classes` alone, which are found by name, and their numbers among these.

    Raises SettingError when there are none.
    """
    loaded = load_data(data)
    number = np.array([classes.index(name) if name in classes else -1 for name in loaded.classes])
    labels = number[loaded.test_labels]
    if not (labels >= 0).any():
        raise SettingError(f"{data} has no test image of the classes that are known: give data with the same names")
    return loaded.test_images[labels >= 0], labels[labels >= 0]


def _row(
    rehearsal: Rehearsal, result: RehearsalResult, added: tuple[str, ...], seed: int, output: Path
) -> dict[str, Any]:
    changes = {name: asdict(getattr(result, f"{name}_accuracy")) for name in ("old", "new", "image")}
    return {
        "student": rehearsal.student.bundle.student,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": result.seconds,
        "loss": float(result.losses[-1]),
        "seed": seed,
        "weights": str(output),
        "classes": list(rehearsal.student.classes),
        "new_classes": list(added),
        "buffer": {"images": len(rehearsal.kept.labels) + len(rehearsal.held.labels), "bytes": rehearsal.nbytes},
        "accuracy": changes,
    }
