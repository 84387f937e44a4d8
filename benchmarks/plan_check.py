"""Whether plans hold: training under a hard memory cap on every board's budget, and predicted against measured time.

    python benchmarks/plan_check.py [--only cap|time]

cap: for every board that trains, the plan for 3x32x32 images of 10 classes is exported (a set of noise in the plan's
form) and trained, with the board's threads, by a process in a memory control group whose limit is the board's budget;
and the smallest wider student or larger micro-batch whose prediction exceeds the budget is tried in the same group: it
has to be refused with a line, not killed. Pages of libraries that other processes have in memory are charged to those:
the limit is lowered by them once the bundle is loaded. Needs root and a memory controller, v1 or v2.

time: `edgedd calibrate`, then predicted over measured seconds of `Student.fit` for several students, modes and
micro-batches on one thread and on all cores. The machine must be idle. Writes benchmarks/results/plan_check.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from planner_memory import bundle as noise_bundle
from surroundings import surroundings

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.bundles.bundle import Bundle
from edgedd.device import Student
from edgedd.device.calibration import calibrate
from edgedd.device.planned_bundle import facts_of_bundle
from edgedd.parameterization import Parameterization
from edgedd.planning.machine import usable_cores
from edgedd.planning.placement import load_of, placed
from edgedd.planning.target import Target, load_target
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

RESULTS = Path(__file__).parent / "results" / "plan_check.json"
SHAPE, NUM_CLASSES, RECIPE = (3, 32, 32), 10, Recipe(augmentation=Augmentation(flip=0.5, shift=2))
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
STEPS, LEAST_SECONDS = 4, 1.0
CHILD = """
import json, os, re, sys
from pathlib import Path
group, limit, used, budget, path, steps, options = map(json.loads, sys.argv[1:])
group = Path(group)
(group / "cgroup.procs").write_text(str(os.getpid()))
from edgedd.device import Student
from edgedd.errors import BudgetError
student = Student.load(path, **options)
resident = 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
shared = max(resident - int((group / used).read_text()), 0)
(group / limit).write_text(str(budget - shared))
print(shared, flush=True)
try:
    student.fit(steps=steps)
except BudgetError as error:
    sys.exit("refused: " + str(error))
"""
WIDER = ("convnet3-w64", "convnet3-w128", "convnet3-w256", "convnet3-w512")
# Student, images, mode, micro-batches (None: what suits the cache).
TIMED: tuple[tuple[str, str, str, tuple[int | None, ...]], ...] = (
    ("convnet2-w16", "1x28x28", "full", (None,)),
    ("convnet3-w32", "1x28x28", "full", (None, 1)),
    ("convnet3-w32", "3x32x32", "full", (None, 2, 16)),
    ("convnet3-w64", "3x32x32", "full", (None, 1, 16)),
    ("convnet3-w64", "3x32x32", "head", (None,)),
    ("convnet3-w64", "3x32x32", "bias", (None,)),
    ("convnet3-w128", "3x32x32", "full", (None,)),
    ("convnet4-w32", "3x64x64", "full", (None,)),
    ("resnet8", "3x32x32", "full", (None, 4)),
    ("mobilenet-tiny", "3x32x32", "full", (None,)),
    ("mlp", "1x28x28", "full", (None,)),
)


@contextmanager
def capped(limit_bytes: int) -> Iterator[tuple[Path, str, str, str]]:
    """A memory control group of its own with that limit, and the names of its files: limit, use, largest use."""
    first = (V1 / "memory.limit_in_bytes").exists()
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes")
    names = names if first else ("memory.max", "memory.current", "memory.peak")
    group = (V1 if first else V2) / f"edgedd-{os.getpid()}"
    group.mkdir()
    try:
        (group / names[0]).write_text(str(limit_bytes))
        yield group, *names
    finally:
        group.rmdir()


def noise(form: Parameterization, ipc: int) -> SyntheticSet:
    """Images of noise in a form."""
    generator, count = np.random.default_rng(0), ipc * NUM_CLASSES
    factors = {n: generator.standard_normal(s).astype(np.float32) for n, s in form.factor_shapes(count).items()}
    names, flat = tuple(f"class {k}" for k in range(NUM_CLASSES)), np.full(form.shape[0], 0.5)
    labels = generator.dirichlet(np.ones(NUM_CLASSES), count)
    return SyntheticSet.from_factors(
        form, factors=factors, labels=labels, mean=flat, std=flat, recipe=RECIPE, classes=names, provenance={}
    )


def run_capped(limit_bytes: int, bundle: Bundle, **options: Any) -> dict[str, Any]:
    """What a training process did within the limit: completed, refused (and how) or killed."""
    with capped(limit_bytes) as (group, limit, used, most):
        given = (str(group), limit, used, limit_bytes, str(bundle.path), STEPS, options)
        command = [sys.executable, "-c", CHILD, *map(json.dumps, given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        shared = int(done.stdout or 0)
        peak = int((group / most).read_text()) + shared
    said = (done.stderr.strip().splitlines() or [""])[-1]
    outcome = f"status {done.returncode}"
    if done.returncode == 0:
        outcome, said = "completed", ""
    elif said.startswith("refused: "):
        outcome = "refused"
    return {"outcome": outcome, "peak_bytes": peak, "shared_bytes": shared, "said": said[:300]}


def over(target: Target, synthetic: SyntheticSet, folder: Path) -> tuple[Bundle, dict[str, int], int]:
    """The first wider student or larger micro-batch that is predicted to take more than the budget."""
    load = load_of(synthetic.parameterization, synthetic.count, NUM_CLASSES, synthetic.recipe)
    for student in WIDER:
        path = folder / student
        bundle = Bundle.load(path) if path.exists() else edgedd.export(synthetic, path, student=student)
        facts = facts_of_bundle(bundle)
        for images in (1, 2, 4, 8, 16, 32):
            predicted = placed(facts, load, target, target.cores, images).memory.total
            if predicted > target.process_ram_bytes:
                return bundle, {"threads": target.cores, "micro_batch": images}, predicted
    raise SystemExit(f"nothing exceeds the budget of {target.name}")


def cap_row(name: str, folder: Path) -> dict[str, Any]:
    """One board."""
    target = load_target(name)
    plan = edgedd.plan(image_shape=SHAPE, num_classes=NUM_CLASSES, target=name, recipe=RECIPE)
    synthetic = noise(plan.parameterization, plan.ipc)
    bundle = edgedd.export(synthetic, folder / "planned", student=plan.student, target=name)
    within = run_capped(plan.process_ram_bytes, bundle, threads=plan.threads)
    larger, options, predicted = over(target, synthetic, folder)
    beyond = run_capped(plan.process_ram_bytes, larger, **options)
    row = {"target": name, "budget_bytes": plan.process_ram_bytes, "student": plan.student, "ipc": plan.ipc}
    row |= {"threads": plan.threads, "micro_batch": plan.micro_batch, "predicted_bytes": plan.memory.total, **within}
    return row | {"over": {"student": larger.student, **options, "predicted_bytes": predicted, **beyond}}


def cap() -> list[dict[str, Any]]:
    """All boards that train."""
    rows = []
    for name in edgedd.targets():
        if load_target(name).train:
            with tempfile.TemporaryDirectory() as folder:
                r = cap_row(name, Path(folder))
            rows.append(r)
            o, megabytes = r["over"], [f"{r[k] / 1e6:.0f}" for k in ("peak_bytes", "predicted_bytes", "budget_bytes")]
            print(
                f"{name:22}{r['outcome']:10} peak {megabytes[0]}, predicted {megabytes[1]} of {megabytes[2]} MB", end=""
            )
            print(
                f"; {o['student']} x{o['micro_batch']} ({o['predicted_bytes'] / 1e6:.0f} MB): {o['outcome']}",
                flush=True,
            )
    return rows


def times(folder: Path) -> list[dict[str, Any]]:
    """Predicted and measured seconds a step."""
    _, target = calibrate(folder / "this-machine.toml")
    print({k: getattr(target, k) for k in target.sources if k.startswith(("core_", "node", "parallel", "effective"))})
    rows = []
    for student, images, mode, micro_batches in TIMED:
        path = noise_bundle(folder, student, images, mode)
        for threads in sorted({1, usable_cores()}):
            for micro_batch in micro_batches:
                rows.append(time_row(path, target, threads, micro_batch) | {"images": images, "mode": mode})
                r = rows[-1]
                start = f"{student:16}{images:9}{mode:5}{threads:3} thread(s){r['micro_batch']:4} at once"
                seconds = f"{1e3 * r['predicted_seconds']:9.2f} ms{1e3 * r['measured_seconds']:9.2f} ms"
                print(f"{start}{seconds}{r['ratio']:7.2f}", flush=True)
    return rows


def time_row(path: Path, target: Target, threads: int, micro_batch: int | None) -> dict[str, Any]:
    """One line of the table."""
    student = Student.load(path, threads=threads, micro_batch=micro_batch)
    synthetic, facts = student.synthetic, facts_of_bundle(student.bundle)
    load = load_of(synthetic.parameterization, synthetic.count, len(student.classes), synthetic.recipe)
    images = student.micro_batch(load.batch)
    predicted = placed(facts, load, replace(target, cores=usable_cores()), threads, images).step_seconds
    student.fit(steps=2)
    steps = max(3, round(LEAST_SECONDS / predicted))
    measured = student.fit(steps=steps).seconds / steps
    row = {"student": student.bundle.student, "threads": threads, "micro_batch": images, "batch": load.batch}
    return row | {
        "predicted_seconds": predicted,
        "measured_seconds": measured,
        "ratio": round(predicted / measured, 3),
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cap", "time"))
    arguments = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() and arguments.only else {}
    result = {key: kept[key] for key in ("cap", "time") if key in kept}
    if arguments.only != "time":
        result["cap"] = cap()
    if arguments.only != "cap":
        with tempfile.TemporaryDirectory() as folder:
            rows = times(Path(folder))
        ratios = [row["ratio"] for row in rows]
        within = sum(0.75 <= ratio <= 1.25 for ratio in ratios)
        result["time"] = {"within_25_percent": within, "smallest": min(ratios), "largest": max(ratios), "rows": rows}
        print(f"{within} of {len(rows)} within 25 %, predicted / measured from {min(ratios)} to {max(ratios)}")
    command = "python benchmarks/plan_check.py" + (f" --only {arguments.only}" if arguments.only else "")
    RESULTS.write_text(json.dumps({**result, "command": command, **surroundings()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
