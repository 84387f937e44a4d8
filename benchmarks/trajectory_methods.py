"""Trajectory matching on real images at equal bytes, against baselines and other methods.

    edgedd experts --data DATA.npz --count 4 --epochs 8 --width 32 -o EXPERTS
    python benchmarks/trajectory_methods.py NAME DATA.npz EXPERTS [--bytes 7840,31360] [--seeds 3] [--seconds 25]
        [--contenders dm,lss] [--sets DIR]

Contenders are distilled to the same number of bytes with every seed, all but mtt in the same form (FORMS) and with soft
labels, mtt to pixels with hard labels, as in its paper. Networks have width 32. Every contender that moves anything
moves it for about --seconds of one core: its iterations are as many as fit when the first seed's first steps are timed.
Experts, which three contenders share, are not counted; the teacher whose labels sets start with is the first of them.
Then a student is trained from each set by one fixed recipe, in onnxruntime, and the test split is read once. Settings
were chosen on the validation split, with seed 0. Each finished run is a row of results/trajectory_methods_NAME.json,
and a second call goes on with what is missing. DIR keeps the sets.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.distillation import compute, teacher
from edgedd.distillation import run as distillation
from edgedd.distillation.expert_files import ExpertFolder
from edgedd.distillation.options import Options
from edgedd.labelled_images import LabelledImages

WIDTH, STUDENT, STEPS, BATCH, TIMED = 32, "convnet3-w32", 300, 64, 7
FORMS: dict[int, dict[str, Any]] = {
    1: {"parameterization": "low_rank", "rank": 10, "bits": 4},
    3: {"parameterization": "low_rank", "rank": 8, "bits": 4},
}
PIXELS: dict[str, Any] = {"parameterization": "pixels", "bits": 4, "labels": "hard"}
SHORT = {"published": "short"}
KIND = ("budget", "contender", "seconds")
# Name -> method, its settings, and what is said of the form where it is another.
CONTENDERS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "random": ("random", {}, {}),
    "kmeans": ("kmeans", {}, {}),
    "mtt": ("mtt", SHORT, PIXELS),
    "lss": ("lss", SHORT, {}),
    "lss-contrastive": ("lss", {**SHORT, "contrastive": "0.05"}, {}),
    "dm": ("dm", {"batch_real": "64"}, {}),
    "frepo": ("frepo", {}, {}),
}


class Bench:
    """One data set, and what its runs share."""

    def __init__(self, data: LabelledImages, experts: str, seconds: float, sets: Path | None) -> None:
        self.data, self.experts, self.seconds, self.sets = data, experts, seconds, sets
        strong = Augmentation(flip=0.5, shift=3, scale=0.2, rotate=15, cutout=0.25, colour=0.5)
        augmentation = strong if data.shape[0] == 3 else Augmentation(flip=0.5, shift=2)
        self.recipe = edgedd.Recipe(student_lr=0.02, steps=STEPS, batch_size=BATCH, augmentation=augmentation)

    def options(self, name: str, budget: int, seed: int, **more: Any) -> dict[str, Any]:
        """Of `edgedd.distill`; `more` changes the form."""
        method, settings, form = CONTENDERS[name]
        options = {"method": method, "settings": settings, "bytes": budget, "seed": seed, "width": WIDTH}
        if method in ("mtt", "lss"):
            options["experts"] = self.experts
        return options | {"recipe": self.recipe} | (form or FORMS[self.data.shape[0]]) | more

    def iterations(self, options: dict[str, Any]) -> int:
        """As many as take `seconds` of one core, were none of them above a threshold, which ends one half way."""
        if options["method"] in ("random", "kmeans"):
            return 1
        if "experts" in options:
            options = options | {"settings": {**options["settings"], "threshold": "0"}}
        loop = distillation.Distillation(self.data, Options(**options, iterations=1000), None)._start(None)
        loop.total, seconds = 1000, []
        for _ in range(2 + TIMED):  # the first ones compile, and later ones may
            begun = time.process_time()
            loop._step(None)
            seconds.append(time.process_time() - begun)
        return max(5, round(self.seconds / statistics.median(seconds[2:])))

    def row(self, name: str, budget: int, seed: int, iterations: int | None, **more: Any) -> dict[str, Any]:
        """Distil and evaluate once."""
        options = self.options(name, budget, seed, **more)
        iterations = iterations or self.iterations(options)
        begun = time.process_time()
        synthetic = edgedd.distill(self.data, iterations=iterations, **options)
        seconds = round(time.process_time() - begun, 1)
        if self.sets:
            synthetic.save(self.sets / f"{name}_{budget}_{self.seconds:g}_{seed}.safetensors")
        result = edgedd.evaluate(synthetic, self.data, [STUDENT], seeds=1, seed=seed)[0]
        kept = {"budget": budget, "contender": name, "seconds": self.seconds, "seed": seed}
        kept |= {"bytes": synthetic.nbytes, "ipc": synthetic.ipc}
        kept |= {"settings": CONTENDERS[name][1], "form": synthetic.parameterization.as_dict()}
        return kept | {"iterations": iterations, "process_seconds": seconds, "accuracy": result["accuracy"]}


def teach_by(folder: ExpertFolder) -> None:
    """No teacher is trained: the first expert at its last epoch, a network of the same shape, is everyone's."""
    weights = folder.weights(0, folder.epochs)

    def taught(trainer: Any, *_: Any) -> list[list[torch.Tensor]]:
        shapes = [spec.shape for spec in trainer.network.parameters().values()]
        parts = torch.split(weights, [math.prod(shape) for shape in shapes])
        return [[part.view(shape) for part, shape in zip(parts, shapes, strict=True)]]

    teacher.train_teacher = taught


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a budget, contender and time, the best first."""
    lines = []
    for kind in sorted({_kind(row) for row in rows}):
        values = np.array([row["accuracy"] for row in rows if _kind(row) == kind])
        spread = round(float(values.std(ddof=1)), 4) if len(values) > 1 else None
        line = dict(zip(KIND, kind, strict=True)) | {"seeds": len(values)}
        lines.append(line | {"accuracy": round(float(values.mean()), 4), "spread": spread})
    return sorted(lines, key=lambda line: (line["budget"], -line["accuracy"]))


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KIND)


def main() -> None:
    """Parse, run what is missing, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("experts")
    parser.add_argument("--bytes", default="7840,31360")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--sets", type=Path)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    arguments = parser.parse_args()
    if arguments.sets:
        arguments.sets.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    compute.COMPILE_ABOVE_FLOPS["cpu"] = 0.0
    folder = ExpertFolder.open(Path(arguments.experts))
    teach_by(folder)
    path = RESULTS / f"trajectory_methods_{arguments.name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    bench = Bench(edgedd.load_data(arguments.data), arguments.experts, arguments.seconds, arguments.sets)
    command = f"python benchmarks/trajectory_methods.py {arguments.name} {Path(arguments.data).name} EXPERTS"
    command += f" --bytes {arguments.bytes} --seeds {arguments.seeds} --seconds {arguments.seconds:g}"
    command += f" --contenders {arguments.contenders}" if arguments.contenders != ",".join(CONTENDERS) else ""
    facts: dict[str, Any] = {"data": arguments.name, "student": STUDENT, "recipe": bench.recipe.as_dict()}
    facts |= {"width": WIDTH, "experts": {"count": folder.count, "epochs": folder.epochs}}
    for budget in map(int, arguments.bytes.split(",")):
        for seed in range(arguments.seeds):
            for name in arguments.contenders.split(","):
                before = {r["seed"]: r for r in rows if _kind(r) == (budget, name, arguments.seconds)}
                if seed in before:
                    continue
                timed = next(iter(before.values()), {}).get("iterations")
                rows.append({**bench.row(name, budget, seed, timed), "command": command})
                print(json.dumps(rows[-1]), flush=True)
                result = {"summary": summary(rows), **facts, "rows": rows, **surroundings()}
                path.write_text(json.dumps(result, indent=1) + "\n")
    for line in summary(rows):
        print(line)


if __name__ == "__main__":
    main()
