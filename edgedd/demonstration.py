"""`edgedd demo`: the whole way on scikit-learn's digits, offline."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.atomic import refuse_unwritable
from edgedd.errors import SettingError

BYTES = 4096
STUDENT = "convnet2-w32"
SEEDS = 3
ITERATIONS = 300
OnStep = Callable[[str, int, int, float | None], None]


def demo(folder: str | os.PathLike[str] = "demo", *, seed: int = 0, on_step: OnStep | None = None) -> dict[str, Any]:
    """Distil digits to 4096 bytes, export, train in onnxruntime, compare with random real images in the same bytes,
    each with the recipe that suits it.

    Writes the sets, the bundle, trained weights and a preview picture into `folder`.

    Returns:
        rows (what, bytes, ipc, accuracy, accuracies, seeds), files, student, seconds.
    """
    from edgedd.distillation.run import distill
    from edgedd.evaluation import evaluate, train_bundle
    from edgedd.exporting import export
    from edgedd.labelled_images import load_data
    from edgedd.report.preview import preview

    begun = time.perf_counter()
    out = _folder(Path(folder))
    data = load_data("digits")
    common: dict[str, Any] = {"bytes": BYTES, "width": 32, "seed": seed}

    def report(step: Any) -> None:
        if on_step:
            on_step(*step)

    synthetic = distill(data, method="frepo", iterations=ITERATIONS, on_step=report, command="edgedd demo", **common)
    baseline = distill(data, method="random", on_step=report, command="edgedd demo", **common)
    files = {"synthetic set": out / "digits.safetensors", "baseline set": out / "random.safetensors"}
    files |= {"bundle": out / "bundle", "weights": out / "weights.safetensors", "preview": out / "preview.png"}
    synthetic.save(files["synthetic set"])
    baseline.save(files["baseline set"])
    preview(synthetic, files["preview"])
    export(synthetic, files["bundle"], student=STUDENT)
    train_bundle(files["bundle"], files["weights"], seed=seed)
    rows = []
    for what, made in (("random real images", baseline), ("synthetic set", synthetic)):
        row = evaluate(made, data, [STUDENT], seeds=SEEDS, seed=seed)[0]
        rows.append({"what": what, "ipc": made.ipc, **{k: row[k] for k in ("bytes", "accuracy", "accuracies")}})
    rows.append(_full(data, files, seed))
    for row in rows:
        row["seeds"] = len(row["accuracies"])
    paths = {name: str(path) for name, path in files.items()}
    return {"rows": rows, "files": paths, "student": STUDENT, "seconds": time.perf_counter() - begun}


def _full(data: Any, files: dict[str, Path], seed: int) -> dict[str, Any]:
    """The bundle's student trained on the whole training set, through the same graph."""
    from edgedd.device import Student

    images = data.normalise(data.train_images)
    labels = np.eye(data.num_classes, dtype=np.float32)[data.train_labels]
    accuracies = []
    for number in range(SEEDS):
        student = Student.load(files["bundle"], seed=seed + number)
        generator = np.random.default_rng([seed, number])
        recipe = student.recipe
        for step in range(recipe.steps):
            rows = generator.choice(len(images), recipe.batch_size, replace=False)
            student.step(images[rows], labels[rows], recipe.learning_rate(step))
        accuracies.append(student.evaluate(data.test_images, data.test_labels))
    size = int(data.train_images.nbytes + len(data.train_labels))
    ipc = len(data.train_images) // data.num_classes
    return {
        "what": "full training set",
        "bytes": size,
        "ipc": ipc,
        "accuracy": float(np.mean(accuracies)),
        "accuracies": accuracies,
    }


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"cannot make the folder {folder}: {error.strerror}; choose another with --folder"
        ) from error
    refuse_unwritable(folder / "digits.safetensors")
    return folder
