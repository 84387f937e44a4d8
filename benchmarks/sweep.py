"""Which form holds most at a number of bytes: validation accuracy over kinds, ranks, subspaces and bits.

    python benchmarks/sweep.py NAME DATA.npz
    python benchmarks/sweep.py --table

One row a form and budget. As many images per class as the bytes hold start from real images and the labels of one
teacher, and are distilled by frepo with networks of width 32, every form for about equal work (WORK passes of an
image forwards and backwards, but at least LEAST_STEPS steps). Then onnxruntime trains two students of width 32 from
the file for STEPS steps by the recipe of the data set, and they are tested on 5000 images of the validation split; the
test split is never read. Forms that hold more than MOST_IPC images per class are left out: distilling them takes long.

Budgets are those of 0.25 (grey: 0.5), 1 and 4 uint8 images a class; 0.25 would be 1960 bytes for Fashion-MNIST, of
which 1300 are the file's header. One thread a process, so that two data sets run side by side. A finished row is
written at once to benchmarks/results/sweep_NAME.json, and a second call goes on after the last. `--table` writes
edgedd/planning/sweep.json, by which `edgedd plan` chooses.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.device import Student
from edgedd.distillation.compute import Compute
from edgedd.distillation.frepo import FRePo
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import Validation
from edgedd.distillation.teacher import TEMPERATURE, train_teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import Trainer
from edgedd.errors import BudgetError, SettingError
from edgedd.labelled_images import LabelledImages
from edgedd.parameterization import Parameterization
from edgedd.planning import planner
from edgedd.recipe import Recipe
from edgedd.students import default_student, student

TABLE = Path(edgedd.__file__).parent / "planning" / "sweep.json"
WIDTH, WORK, LEAST_STEPS, MOST_IPC = 32, 24_000, 30, 130
SEEDS, STEPS = (0, 1), 200
BUDGETS = {1: (3920, 7840, 31_360), 3: (7680, 30_720, 122_880)}
RECIPES = {
    1: Recipe(steps=STEPS, augmentation=Augmentation(shift=1)),
    3: Recipe(steps=STEPS, weight_decay=5e-3, augmentation=Augmentation(flip=0.5, shift=2)),
}
# Kind, bits, and for low_rank the rank as a fraction of the shorter side and the subspaces, for formation its tiles.
FORMS: tuple[tuple[Any, ...], ...] = (
    ("low_rank", 4, 0.25, 1),
    ("low_rank", 4, 0.375, 1),
    ("low_rank", 4, 0.5, 1),
    ("low_rank", 2, 0.25, 1),
    ("low_rank", 2, 0.375, 1),
    ("low_rank", 2, 0.5, 1),
    ("low_rank", 4, 0.15, 1),
    ("low_rank", 8, 0.25, 1),
    ("low_rank", 4, 0.25, 4),
    ("low_rank", 8, 0.5, 1),
    ("formation", 4, 2),
    ("formation", 2, 2),
    ("formation", 4, 3),
    ("pixels", 4),
)


@dataclass(frozen=True)
class Bench:
    """One data set with what all its rows share: the split, the real images, a teacher."""

    data: LabelledImages
    name: str

    @cached_property
    def parts(self) -> tuple[LabelledImages, tuple[np.ndarray, np.ndarray]]:
        """Training images, and the validation images that rows are tested on."""
        training, held_out = self.data.split(seed=0)
        some = Validation.drawn(held_out, 0)
        return training, (some.images, some.labels)

    @cached_property
    def compute(self) -> Compute:
        """One core, no compilation: each number of images would be compiled anew."""
        return Compute.choose("cpu", compiled=False)

    @cached_property
    def real(self) -> RealImages:
        """The training images."""
        return RealImages.of(self.parts[0], self.compute)

    @cached_property
    def teacher(self) -> tuple[Trainer, list[torch.Tensor]]:
        """Trained once, for the labels that every row starts from."""
        network = student(default_student(self.data.shape, WIDTH), self.data.shape, self.data.num_classes)
        trainer = Trainer(network, self.compute)
        return trainer, train_teacher(trainer, self.real, np.random.default_rng([0, 0]))[-1]

    def start(self, form: Parameterization, ipc: int) -> TrainableSet:
        """Random real images in this form, with the teacher's labels."""
        chooser = np.random.default_rng([0, 1])
        orders = [self.real.sample_class(c, MOST_IPC, chooser)[:ipc] for c in range(self.real.num_classes)]
        images = self.real.normalised(np.concatenate(orders))
        trainer, parameters = self.teacher
        logits = torch.log_softmax(trainer.logits(parameters, images) / TEMPERATURE, dim=1).cpu().numpy()
        return TrainableSet.start(form, images.cpu().numpy(), logits, self.compute.device)

    def distilled(self, storage: planner.Storage, recipe: Recipe, provenance: dict[str, Any]) -> Any:
        """The set after its share of work."""
        synthetic, form = self.start(storage.parameterization, storage.ipc), storage.parameterization
        method = FRePo(width=WIDTH, augmentation=recipe.augmentation)
        loop = Loop(synthetic, method, self.real, self.compute, np.random.default_rng([0, 2]))
        loop.run(Length(provenance["iterations"]), None, None)
        return edgedd.SyntheticSet.from_factors(
            form,
            factors=synthetic.numpy_factors(),
            labels=synthetic.numpy_labels(),
            mean=self.parts[0].mean,
            std=self.parts[0].std,
            recipe=recipe,
            classes=self.data.classes,
            provenance=provenance,
        )


def form_of(row: tuple[Any, ...], shape: tuple[int, int, int]) -> Parameterization:
    """A row of FORMS for images of `shape`."""
    kind, bits, *rest = row
    if kind == "low_rank":
        return planner.parameterization_for(shape, kind, round(rest[0] * min(shape[1:])), bits, rest[1])
    return planner.parameterization_for(shape, kind, None, bits, formation=rest[0] if rest else None)


def iterations(count: int) -> int:
    """Steps that WORK pays for: all synthetic images, 128 for the network, 512 real ones forwards only."""
    return max(LEAST_STEPS, WORK // (count + 300))


def planned(data: LabelledImages) -> list[tuple[int, tuple[Any, ...], planner.Storage, dict[str, Any]]]:
    """Every budget and form that fits it, with the images that it stores and the file's provenance."""
    found = []
    recipe = RECIPES[data.shape[0]]
    for budget in BUDGETS[data.shape[0]]:
        for row in FORMS:
            provenance = {"method": "frepo", "data": data.fingerprint, "seed": 0, "iterations": 999_999_999}
            provenance |= {"edgedd": edgedd.__version__, "command": "edgedd distill"}
            try:
                form = form_of(row, data.shape)
                storage = planner.storage(form, data.classes, provenance, budget_bytes=budget, recipe=recipe)
            except (BudgetError, SettingError):
                continue
            if storage.ipc <= MOST_IPC:
                steps = iterations(storage.ipc * data.num_classes)
                found.append((budget, row, storage, provenance | {"iterations": steps}))
    return found


def accuracies(synthetic: Any, validation: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Of a student for each seed, trained by onnxruntime on one thread, on the validation images."""
    name = default_student(synthetic.parameterization.shape, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        edgedd.export(synthetic, Path(folder) / "bundle", student=name)
        trained = Student.load(Path(folder) / "bundle", threads=1)
        found = []
        for seed in SEEDS:
            trained.fit(seed=seed)
            found.append(trained.evaluate(*validation))
    return found


def run(bench: Bench, path: Path, command: str) -> None:
    """All rows that `path` does not hold yet."""
    done = json.loads(path.read_text())["rows"] if path.exists() else []
    known = {(row["budget_bytes"], json.dumps(row["parameterization"])) for row in done}
    plans = planned(bench.data)
    todo = [p for p in plans if (p[0], json.dumps(p[2].parameterization.as_dict())) not in known]
    begun = time.monotonic()
    for number, (budget, _, storage, provenance) in enumerate(todo, start=1):
        done.append(measured(bench, budget, storage, provenance))
        _write(path, bench, done, command)
        left = (len(todo) - number) * (time.monotonic() - begun) / number / 60
        form = " ".join(f"{k} {v}" for k, v in done[-1]["parameterization"].items() if k != "shape")
        said = f"{100 * done[-1]['accuracy']:.2f} % in {done[-1]['seconds']:.0f} s"
        print(
            f"{bench.name} {budget}: {form}, ipc {storage.ipc}: {said}; {number} of {len(todo)}, {left:.0f} min left",
            flush=True,
        )


def measured(bench: Bench, budget: int, storage: planner.Storage, provenance: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    start = time.monotonic()
    synthetic = bench.distilled(storage, RECIPES[bench.data.shape[0]], provenance)
    distilled = time.monotonic()
    found = accuracies(synthetic, bench.parts[1])
    return {
        "budget_bytes": budget,
        "bytes": synthetic.nbytes,
        "ipc": storage.ipc,
        "parameterization": storage.parameterization.as_dict(),
        "iterations": provenance["iterations"],
        "accuracy": float(np.mean(found)),
        "accuracies": found,
        "distil_seconds": round(distilled - start, 1),
        "seconds": round(time.monotonic() - start, 1),
    }


def _write(path: Path, bench: Bench, rows: list[dict[str, Any]], command: str) -> None:
    channels = bench.data.shape[0]
    data = {"name": bench.name, "fingerprint": bench.data.fingerprint, "shape": list(bench.data.shape)}
    result = {
        "data": data | {"classes": bench.data.num_classes, "validation_images": len(bench.parts[1][1])},
        "distilled": f"frepo, width {WIDTH}, work {WORK}, at least {LEAST_STEPS} steps",
        "student": default_student(bench.data.shape, WIDTH),
        "seeds": list(SEEDS),
        "recipe": RECIPES[channels].as_dict(),
        "rows": rows,
        "command": command,
        **surroundings(),
    }
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def table() -> str:
    """What `edgedd plan` reads, from all results: by channels, each form with its accuracy at relative budgets.

    A relative budget is in uint8 images a class, so that it holds for other sides and numbers of classes.
    """
    found: dict[str, Any] = {}
    for path in sorted(RESULTS.glob("sweep_*.json")):
        result = json.loads(path.read_text())
        shape, classes = result["data"]["shape"], result["data"]["classes"]
        forms: dict[str, dict[str, Any]] = {}
        for row in result["rows"]:
            form = {key: value for key, value in row["parameterization"].items() if key != "shape"}
            if "rank" in form:
                form["rank"] = round(form["rank"] / min(shape[1:]), 4)
            entry = forms.setdefault(json.dumps(form), form | {"measured": []})
            relative = row["budget_bytes"] / (classes * shape[0] * shape[1] * shape[2])
            entry["measured"].append([round(relative, 4), round(row["accuracy"], 4)])
        found[str(shape[0])] = {"data": result["data"]["name"], "forms": list(forms.values())}
    return json.dumps(found, indent=1) + "\n"


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="what the result is called")
    parser.add_argument("data", nargs="?", help="an .npz file, or a built-in name")
    parser.add_argument("--table", action="store_true", help="write edgedd/planning/sweep.json and end")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--only", type=int, help="one row by its number, timed; nothing is written")
    arguments = parser.parse_args()
    if arguments.table:
        TABLE.write_text(table())
        return
    torch.set_num_threads(1)
    bench = Bench(replace(edgedd.load_data(arguments.data), name=arguments.name), arguments.name)
    rows = planned(bench.data)
    if arguments.list:
        for number, (budget, form, storage, provenance) in enumerate(rows):
            print(number, budget, form, "ipc", storage.ipc, "steps", provenance["iterations"])
    elif arguments.only is not None:
        _time(bench, arguments.only)
    else:
        command = f"python benchmarks/sweep.py {arguments.name} {Path(arguments.data).name}"
        run(bench, RESULTS / f"sweep_{arguments.name}.json", command)


def _time(bench: Bench, number: int) -> None:
    """Seconds of this process on the processor: others may be at work."""
    _, form, storage, provenance = planned(bench.data)[number]
    started = time.process_time()
    print(form, "ipc", storage.ipc, provenance["iterations"], "steps", flush=True)
    bench.teacher  # noqa: B018
    begun = time.process_time()
    print(f"teacher {begun - started:.1f} s", flush=True)
    synthetic = bench.distilled(storage, RECIPES[bench.data.shape[0]], provenance)
    distilled = time.process_time()
    print(f"to distil {distilled - begun:.1f} s", flush=True)
    print(accuracies(synthetic, bench.parts[1]), f"to train and test {time.process_time() - distilled:.1f} s")


if __name__ == "__main__":
    main()
