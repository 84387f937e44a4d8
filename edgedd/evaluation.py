"""How good a synthetic set is: students trained from the file alone, tested on real images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.atomic import only_writer, refuse_unwritable
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, WEIGHTS
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages, load_data
from edgedd.student_trainings import Trainings, facts, train_students
from edgedd.students import default_student
from edgedd.synthetic_set import SyntheticSet

PAPERS_WIDTH = 128
OnSeed = Callable[[str, int, float], None]
OnPart = Callable[[int, int], None]
OnStep = Callable[[str, int, int, float | None], None]


def evaluate(
    synthetic: SyntheticSet,
    data: "LabelledImages | str",
    students: Sequence[str] | None = None,
    *,
    on_seed: OnSeed | None = None,
    on_part: OnPart | None = None,
    **trainings: Any,
) -> list[dict[str, Any]]:
    """Train each student several times; each training reads the test images once.

    Keyword arguments are the fields of `Trainings`. `on_part(done, all)` counts trainings, or epochs of a published
    recipe. Returns one row a student: student, accuracy (mean fraction), spread (sample standard deviation),
    accuracies, seeds, seconds (mean training time), bytes, recipe, epochs, steps (of a training), runtime.

    Raises:
        SettingError, DataError, ExportError: one line each.
    """
    from edgedd.exporting.export import student_network

    how = Trainings(**trainings)
    data = data if isinstance(data, LabelledImages) else load_data(data)
    data.refuse_unlike(synthetic.parameterization.shape, len(synthetic.classes))
    names = students or [default_student(data.shape, *(() if how.recipe == "set" else (PAPERS_WIDTH,)))]
    for name in names:
        student_network(name, data.shape, data.num_classes)
    parts = how.seeds * len(names) * (1 if how.recipe == "set" else facts(synthetic, how)["epochs"])
    done = 0

    def on_next() -> None:
        nonlocal done
        done += 1
        if on_part:
            on_part(done, parts)

    return [_row(synthetic, data, name, how, on_seed=on_seed, on_next=on_next) for name in names]


def _row(
    synthetic: SyntheticSet,
    data: LabelledImages,
    name: str,
    how: Trainings,
    *,
    on_seed: OnSeed | None,
    on_next: Callable[[], None],
) -> dict[str, Any]:
    accuracies, seconds = [], []
    for seed, (accuracy, took) in enumerate(train_students(synthetic, data, name, how, on_next), how.seed):
        accuracies.append(accuracy)
        seconds.append(took)
        if on_seed:
            on_seed(name, seed, accuracy)
    return {
        "student": name,
        "accuracy": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
        "accuracies": accuracies,
        "seeds": list(range(how.seed, how.seed + how.seeds)),
        "seconds": float(np.mean(seconds)),
        "bytes": synthetic.nbytes,
    } | facts(synthetic, how)


def evaluate_path(
    path: Path,
    data: str,
    students: Sequence[str] | None = None,
    *,
    weights: Path | None = None,
    baselines: bool = False,
    ranking: bool = False,
    on_step: OnStep | None = None,
    **trainings: Any,
) -> list[dict[str, Any]]:
    """`evaluate` of a set's file; or, of a bundle, one row for the trained `weights` on the test images.

    Each of `students` may be several names with commas between them; of a bundle it is one of its own. `baselines` and
    `ranking` compare a set with real images: see `edgedd.baselines.comparison`.
    """
    if not (path.is_dir() or path.name.endswith(ARCHIVE)):
        if weights is not None:
            raise SettingError(f"--weights is for a bundle, and {path} is not one: leave it out, or give the bundle")
        names = [name.strip() for text in students or () for name in text.split(",")]

        def on_part(done: int, parts: int) -> None:
            if on_step:
                on_step("evaluate", done, parts, None)

        synthetic = SyntheticSet.load(path)
        if not (baselines or ranking):
            return evaluate(synthetic, data, names, on_part=on_part, **trainings)
        from edgedd.baselines.comparison import compare

        wanted = trainings | {"baselines": baselines, "ranking": ranking, "on_step": on_step}
        return compare(synthetic, load_data(data), names, **wanted)
    if baselines or ranking:
        raise SettingError(f"--baselines and --ranking are for a set, and {path} is a bundle: give the set")
    if students and len(students) > 1:
        raise SettingError(f"{path} is a bundle, of which one student has these weights: name one with --students")
    from edgedd.device import Student

    how = Trainings(**trainings)
    if how.runtime != "onnxruntime" or how.epochs is not None:
        raise SettingError(
            f"--recipe, --epochs, --device, --torch are for a set, and {path} is a bundle: leave them out"
        )
    bundled = Student.load(path, student=students[0] if students else None)
    if weights is not None:
        bundled.load_weights(weights)
    elif not bundled.bundle.holds(WEIGHTS):
        raise SettingError(f"{path} is a bundle: give the weights that `edgedd train` wrote with --weights")
    if bundled.classes == bundled.synthetic.classes:
        loaded = load_data(data)
        loaded.refuse_unlike(bundled.bundle.image_shape, len(bundled.classes))
        test = loaded.test_images, loaded.test_labels
    else:  # new ones were learned, which the data may have in another order
        from edgedd.rehearsing import known_test_images

        test = known_test_images(data, bundled.classes)
    accuracy = bundled.evaluate(*test)
    row: dict[str, Any] = {"student": bundled.bundle.student, "accuracy": accuracy}
    row |= {"spread": None, "accuracies": [accuracy]}
    row |= {"seeds": [], "seconds": None, "bytes": bundled.synthetic.nbytes}
    return [row | {"recipe": None, "epochs": None, "steps": None, "runtime": "onnxruntime"}]


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
        loaded.refuse_unlike(synthetic.parameterization.shape, len(synthetic.classes))
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

    `runtime` is how `Student.load` opens and runs it: student, threads, micro_batch, low_memory, require_signature.
    """
    from edgedd.device import Student

    refuse_unwritable(output)
    loaded = load_data(data) if data else None
    student = Student.load(bundle, **runtime)
    if loaded:
        loaded.refuse_unlike(student.bundle.image_shape, len(student.classes))
    count, recipe = student.synthetic.count, student.recipe
    epochs = -(-recipe.steps // (count // min(recipe.batch_size, count)))

    def on_epoch(epoch: int, loss: float) -> None:
        if on_step:
            on_step("train", epoch, epochs, loss)

    with only_writer(output):
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
