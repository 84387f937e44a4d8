"""How good a synthetic set is: students trained from the file alone by the device runtime, tested on real images."""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.atomic import refuse_unwritable
from edgedd.bundle import WEIGHTS, Bundle
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.students import default_student
from edgedd.synthetic_set import SyntheticSet

OnSeed = Callable[[str, int, float], None]
OnStep = Callable[[str, int, int, float | None], None]


def evaluate(
    synthetic: SyntheticSet,
    data: "LabelledImages | str",
    students: Sequence[str] | None = None,
    *,
    seeds: int = 3,
    seed: int = 0,
    on_seed: OnSeed | None = None,
) -> list[dict[str, Any]]:
    """Train each student `seeds` times by the set's recipe in onnxruntime; each reads the test images once.

    Returns one row a student: student, accuracy (mean fraction), spread (sample standard deviation), accuracies,
    seeds, seconds (mean training time), bytes.

    Raises:
        SettingError, DataError, ExportError: one line each.
    """
    data = data if isinstance(data, LabelledImages) else load_data(data)
    if not 1 <= seeds <= 100:
        raise SettingError(f"seeds={seeds}, wanted 1 to 100 trainings")
    _refuse_other_data(data, synthetic.parameterization.shape, len(synthetic.classes))
    names = students or [default_student(data.shape)]
    return [_row(synthetic, data, name, range(seed, seed + seeds), on_seed) for name in names]


def _refuse_other_data(data: LabelledImages, shape: tuple[int, ...], num_classes: int) -> None:
    if data.shape != tuple(shape) or data.num_classes != num_classes:
        theirs = f"{'x'.join(map(str, data.shape))} images of {data.num_classes} classes"
        ours = f"{'x'.join(map(str, shape))} of {num_classes}"
        raise SettingError(f"the data has {theirs}, the set {ours}: give the data that the set came from")


def _row(
    synthetic: SyntheticSet, data: LabelledImages, name: str, seeds: range, on_seed: OnSeed | None
) -> dict[str, Any]:
    from edgedd.device import Student
    from edgedd.exporting import export

    accuracies, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export(synthetic, bundle, student=name)
        student = Student.load(bundle)
        for seed in seeds:
            begun = time.perf_counter()
            student.fit(seed=seed)
            seconds.append(time.perf_counter() - begun)
            accuracies.append(student.evaluate(data.test_images, data.test_labels))
            if on_seed:
                on_seed(name, seed, accuracies[-1])
    return {
        "student": name,
        "accuracy": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
        "accuracies": accuracies,
        "seeds": list(seeds),
        "seconds": float(np.mean(seconds)),
        "bytes": synthetic.nbytes,
    }


def evaluate_path(
    path: Path,
    data: str,
    students: Sequence[str] | None = None,
    *,
    seeds: int = 3,
    seed: int = 0,
    weights: Path | None = None,
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """`evaluate` of a set's file; or, of a bundle folder, one row for the trained `weights` on the test images."""
    if not path.is_dir():
        if weights is not None:
            raise SettingError(f"--weights is for a bundle, and {path} is not one: leave it out, or give the bundle")
        trainings = itertools.count(1)

        def on_seed(name: str, seed: int, accuracy: float) -> None:
            if on_step:
                on_step("evaluate", next(trainings), seeds * len(students or ("the default",)), None)

        return evaluate(SyntheticSet.load(path), data, students, seeds=seeds, seed=seed, on_seed=on_seed)
    if students:
        raise SettingError(f"--students is for a set, and {path} is a bundle with its own student: leave it out")
    from edgedd.device import Student

    student = Student.load(path)
    if weights is not None:
        student.load_weights(weights)
    elif not student.bundle.holds(WEIGHTS):
        raise SettingError(f"{path} is a bundle: give the weights that `edgedd train` wrote with --weights")
    loaded = load_data(data)
    _refuse_other_data(loaded, student.bundle.image_shape, len(student.classes))
    accuracy = student.evaluate(loaded.test_images, loaded.test_labels)
    row = {"student": student.bundle.student, "accuracy": accuracy, "spread": None, "accuracies": [accuracy]}
    return [row | {"seeds": [], "seconds": None, "bytes": student.synthetic.nbytes}]


def export_and_compare(
    synthetic: SyntheticSet, out: Path, *, quantize: bool, data: str | None, **wanted: Any
) -> tuple[Bundle, dict[str, float] | None]:
    """`edgedd.export`; with `quantize` and `data` also the accuracy in float32 and in int8 on the test images."""
    from edgedd.device import Student
    from edgedd.exporting import export

    if data is not None and not quantize:
        raise SettingError("--data is for the comparison of --quantize: leave it out, or quantize")
    loaded = load_data(data) if data else None
    if loaded:
        _refuse_other_data(loaded, synthetic.parameterization.shape, len(synthetic.classes))
    bundle = export(synthetic, out, quantize=quantize, **wanted)
    if loaded is None:
        return bundle, None
    student, test = Student.load(out), (loaded.test_images, loaded.test_labels)
    return bundle, {"float32": student.evaluate(*test), "int8": student.evaluate(*test, int8=True)}


def train_bundle(
    bundle: Path,
    output: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    on_step: OnStep | None = None,
    **runtime: Any,
) -> dict[str, Any]:
    """Train a bundle's student by its recipe, save the weights, and test it where `data` is given.

    `runtime` is how `Student.load` runs it: threads, micro_batch, low_memory.
    """
    from edgedd.device import Student

    refuse_unwritable(output)
    loaded = load_data(data) if data else None
    student = Student.load(bundle, **runtime)
    if loaded:
        _refuse_other_data(loaded, student.bundle.image_shape, len(student.classes))
    count, recipe = student.synthetic.count, student.recipe
    epochs = -(-recipe.steps // (count // min(recipe.batch_size, count)))

    def on_epoch(epoch: int, loss: float) -> None:
        if on_step:
            on_step("train", epoch, epochs, loss)

    result = student.fit(seed=seed, on_epoch=on_epoch)
    student.save(output)
    row = {
        "student": student.bundle.student,
        "steps": result.steps,
        "seconds": result.seconds,
        "loss": result.final_loss,
        "seed": seed,
        "weights": str(output),
        "accuracy": None,
    }
    if loaded:
        row["accuracy"] = student.evaluate(loaded.test_images, loaded.test_labels)
    return row
