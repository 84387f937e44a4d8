"""What each idea adds: pairs of methods that differ in it alone, same seeds, start images, iterations and evaluation.

    python benchmarks/ablations.py NAME DATA.npz [--seeds 5] [--jobs 2] [--pairs dm-iid,dc-dcc]

Distils DATA to pixels of 8 bits with hard labels at 10 images a class (four times as many decoded for idm, which
stores tiles), with every seed, then trains one student from each set with a fixed recipe in onnxruntime and reads the
test split once. Nothing is tuned here. Each finished run is a row of benchmarks/results/ablations_NAME.json, and a
second call goes on with what is missing. The pairs that end in -long are apart: a tenth of the papers' 1,000 networks,
by the papers' SGD at ten times their rate, so that the set moves as far; networks learn five times as fast and train
a fifth as long. They run where they are named; in dsa-dsac-rate-long, dsac has 2.4 times the rate, since its gradient
is as much smaller. A run that another pair has already made is not made again.
"""

import argparse
import itertools
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stored import RESULTS
from surroundings import surroundings

IPC, WIDTH = 10, 32
STUDENT, STEPS = "convnet3-w32", 300
SMALL = {"batch_real": "64"}
QUEUE = {**SMALL, "train_steps": "3", "train_batch": "64"}
INNER = {**SMALL, "epochs": "10"}
POOL = {"pool": "1", "pool_epochs": "1"}
TENTH = {**INNER, "optimizer": "sgd", "lr": "1", "network_lr": "0.05"}
# Pair -> iterations, and for each side the method with its settings.
PAIRS: dict[str, tuple[int, tuple[str, dict[str, str]], tuple[str, dict[str, str]]]] = {
    "random-herding": (1, ("random", {}), ("herding", {})),
    "dm-iid": (300, ("dm", SMALL), ("iid", {**SMALL, **POOL, "base": "dm"})),
    "idm-iid": (100, ("idm", QUEUE), ("iid", {**QUEUE, **POOL, "base": "idm"})),
    "dc-dcc": (80, ("dc", INNER), ("dcc", INNER)),
    "dsa-dsac": (80, ("dsa", INNER), ("dsac", INNER)),
    "dc-dcc-long": (1000, ("dc", TENTH), ("dcc", TENTH)),
    "dsa-dsac-long": (1000, ("dsa", TENTH), ("dsac", TENTH)),
    "dsa-dsac-rate-long": (1000, ("dsa", TENTH), ("dsac", {**TENTH, "lr": "2.4"})),
}
SHORT = [pair for pair in PAIRS if not pair.endswith("-long")]


def run(data_path: str, pair: str, side: int, seeds: list[int]) -> None:
    """Distil and evaluate for each seed, a JSON line each; a process of its own, which compiles once."""
    import torch

    import edgedd
    from edgedd.augmentation import Augmentation
    from edgedd.distillation import compute

    torch.set_num_threads(1)
    compute.COMPILE_ABOVE_FLOPS["cpu"] = 0.0
    iterations, *sides = PAIRS[pair]
    method, settings = sides[side]
    data = edgedd.load_data(data_path)
    augmentation = Augmentation(flip=0.5, shift=3, scale=0.2, rotate=15, cutout=0.25, colour=0.5)
    recipe = edgedd.Recipe(student_lr=0.02, steps=STEPS, batch_size=128, augmentation=augmentation)
    form = (
        {"parameterization": "formation", "ipc": 4 * IPC}
        if "idm" in pair
        else {"parameterization": "pixels", "ipc": IPC}
    )
    common = {"bits": 8, "labels": "hard", "width": WIDTH, "iterations": iterations, "recipe": recipe, **form}
    for seed in seeds:
        begun = time.perf_counter()
        synthetic = edgedd.distill(data, method=method, settings=settings, seed=seed, **common)
        seconds = round(time.perf_counter() - begun, 1)
        result = edgedd.evaluate(synthetic, data, [STUDENT], seeds=1, seed=seed)[0]
        row = {"pair": pair, "side": side, "method": method, "settings": settings, "seed": seed}
        row |= {"bytes": synthetic.nbytes, "accuracy": result["accuracy"], "distil_seconds": seconds}
        print(json.dumps(row), flush=True)


def what(pair: str, side: int) -> tuple[int, str, str]:
    """What is run: iterations, method, settings. Pairs that have a side in common share its runs."""
    iterations, *sides = PAIRS[pair]
    method, settings = sides[side]
    return iterations, method, json.dumps(settings, sort_keys=True)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a pair: means and sample deviations of both sides, and of the difference by seed."""
    import numpy as np

    lines = []
    for pair in PAIRS:
        sides: list[dict[int, float]] = [
            {r["seed"]: r["accuracy"] for r in rows if what(r["pair"], r["side"]) == what(pair, side)}
            for side in (0, 1)
        ]
        seeds = sorted(sides[0].keys() & sides[1].keys())
        if not seeds:
            continue
        before, after = (np.array([side[seed] for seed in seeds]) for side in sides)
        line: dict[str, Any] = {"pair": pair, "seeds": len(seeds), "iterations": PAIRS[pair][0]}
        for name, values in (("before", before), ("after", after), ("gain", after - before)):
            spread = float(values.std(ddof=1)) if len(seeds) > 1 else 0.0
            line |= {name: round(float(values.mean()), 5), f"{name}_spread": round(spread, 5)}
        lines.append(line)
    return lines


def main() -> None:
    """Parse, run what is missing, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pairs", default=",".join(SHORT))
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.data, *json.loads(arguments.run))
        return
    path = RESULTS / f"ablations_{arguments.name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    finished = {(what(r["pair"], r["side"]), r["seed"]) for r in rows}
    command = f"python benchmarks/ablations.py {arguments.name} {Path(arguments.data).name} --seeds {arguments.seeds}"
    about = {"command": command + (f" --pairs {arguments.pairs}" if arguments.pairs != ",".join(SHORT) else "")}
    facts = {"student": STUDENT, "student_steps": STEPS, "width": WIDTH, "ipc": IPC}
    lock, begun, before = threading.Lock(), time.monotonic(), len(rows)
    wanted = itertools.product(arguments.pairs.split(","), (0, 1), range(arguments.seeds))
    total = before + sum((what(pair, side), seed) not in finished for pair, side, seed in wanted)

    def work(pair: str, side: int) -> None:
        seeds = [s for s in range(arguments.seeds) if (what(pair, side), s) not in finished]
        if not seeds:
            return
        command = [sys.executable, __file__, arguments.name, arguments.data, "--run", json.dumps([pair, side, seeds])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                with lock:
                    rows.append(json.loads(line) | about)
                    result = {"summary": summary(rows), **facts, "rows": rows, **surroundings()}
                    path.write_text(json.dumps(result, indent=1) + "\n")
                    left = (time.monotonic() - begun) / (len(rows) - before) * (total - len(rows)) / 60
                    print(f"{len(rows)}/{total} {line.strip()}; {left:.0f} min left", flush=True)
        if process.returncode:
            raise SystemExit(f"{pair}, side {side} ended with {process.returncode}")

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for task in [pool.submit(work, pair, side) for pair in arguments.pairs.split(",") for side in (0, 1)]:
            task.result()
    for line in summary(rows):
        print(line)


if __name__ == "__main__":
    main()
