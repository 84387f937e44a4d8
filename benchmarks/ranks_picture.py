"""How the rank of low-rank images trades their detail for their number: accuracy and pictures at equal bytes.

    python benchmarks/ranks_picture.py NAME DATA.npz EXPERTS [--budget 30720] [--seeds 2] [--seconds 25] --sets FOLDER
    python benchmarks/ranks_picture.py NAME --sets FOLDER --draw

lss, and its start (random images with the teacher's labels), at ranks 2, 4, 8 and 16 in 4 bits, as
benchmarks/trajectory_methods.py distils and evaluates them. Rows go to results/ranks_NAME.json, sets to FOLDER, and a
second call goes on with what is missing; `--contenders random` does the start alone. `--draw` makes
docs/pictures/ranks_NAME.png of both, with the images of the last contender that is there.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from surroundings import surroundings
from trajectory_methods import STUDENT, Bench, teach_by

import edgedd
from edgedd.distillation import compute
from edgedd.distillation.expert_files import ExpertFolder

ROOT = Path(__file__).parents[1]
RANKS, SHOWN = (2, 4, 8, 16), 2
CONTENDERS = {"random": "start: random images, soft labels", "lss": "distilled (lss)"}


def run(bench: Bench, path: Path, arguments: argparse.Namespace) -> None:
    """All rows that are missing."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    done = {(row["contender"], row["rank"], row["seed"]) for row in rows}
    timed: dict[int, int] = {row["rank"]: row["iterations"] for row in rows if row["contender"] == "lss"}
    for seed in range(arguments.seeds):
        for name in arguments.contenders.split(","):
            for rank in RANKS:
                if (name, rank, seed) in done:
                    continue
                options = bench.options(name, arguments.budget, seed, rank=rank)
                iterations = timed.get(rank) if name == "lss" else 1
                iterations = iterations or timed.setdefault(rank, bench.iterations(options))
                begun = time.process_time()
                output = arguments.sets / f"{name}-{rank}-{seed}.safetensors"
                synthetic = edgedd.distill(bench.data, iterations=iterations, output=output, **options)
                seconds = round(time.process_time() - begun, 1)
                accuracy = edgedd.evaluate(synthetic, bench.data, [STUDENT], seeds=1, seed=seed)[0]["accuracy"]
                row = {"contender": name, "rank": rank, "seed": seed, "ipc": synthetic.ipc, "bytes": synthetic.nbytes}
                rows.append(row | {"iterations": iterations, "process_seconds": seconds, "accuracy": accuracy})
                print(json.dumps(rows[-1]), flush=True)
                facts = {"budget": arguments.budget, "student": STUDENT, "recipe": bench.recipe.as_dict()}
                path.write_text(json.dumps({**facts, "rows": rows, **surroundings()}, indent=1) + "\n")


def draw(path: Path, sets: Path, output: Path) -> None:
    """The curve on the left, SHOWN images a class at each rank on the right."""
    from matplotlib import pyplot

    results = json.loads(path.read_text())
    shown = [name for name in CONTENDERS if any(row["contender"] == name for row in results["rows"])]
    figure = pyplot.figure(figsize=(11, 5.2), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.7))
    curve(left.subplots(), results, shown)
    for axes, rank in zip(right.subplots(len(RANKS), 1), RANKS, strict=True):
        synthetic = edgedd.SyntheticSet.load(sets / f"{shown[-1]}-{rank}-0.safetensors")
        axes.imshow(tiles(synthetic), interpolation="nearest")
        axes.set_title(f"r = {rank}: {synthetic.ipc} images a class", fontsize=9)
        axes.axis("off")
    output.parent.mkdir(exist_ok=True)
    figure.savefig(output)


def curve(axes: Any, results: dict[str, Any], shown: list[str]) -> None:
    """Mean and every seed's accuracy against the rank, for the distilled sets and their starts."""
    for name in shown:
        values = [[r["accuracy"] for r in results["rows"] if (r["contender"], r["rank"]) == (name, k)] for k in RANKS]
        line = axes.plot(RANKS, [100 * np.mean(v) for v in values], label=CONTENDERS[name])[0]
        for rank, accuracies in zip(RANKS, values, strict=True):
            axes.plot([rank] * len(accuracies), 100 * np.array(accuracies), ".", color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_xticks(RANKS, [str(rank) for rank in RANKS])
    axes.set_xlabel("rank r")
    axes.set_ylabel("test accuracy (%)")
    seeds = len({row["seed"] for row in results["rows"]})
    axes.set_title(f"{results['budget']} bytes, 4 bits a coefficient, n = {seeds}", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def tiles(synthetic: edgedd.SyntheticSet) -> np.ndarray:
    """(SHOWN H, K W, 3) in [0, 1]: a column a class, pixels as they are before normalisation."""
    rows = np.concatenate([np.arange(SHOWN) + c * synthetic.ipc for c in range(len(synthetic.classes))])
    mean, std = (synthetic.tensors[name][:, None, None] for name in ("mean", "std"))
    pixels = np.clip(synthetic.images(rows) * std + mean, 0, 1)
    grid = pixels.reshape(len(synthetic.classes), SHOWN, *pixels.shape[1:]).transpose(1, 3, 0, 4, 2)
    picture: np.ndarray = grid.reshape(SHOWN * pixels.shape[2], -1, pixels.shape[1])
    return picture if picture.shape[2] == 3 else picture.repeat(3, axis=2)


def main() -> None:
    """Parse, run or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data", nargs="?")
    parser.add_argument("experts", nargs="?")
    parser.add_argument("--budget", type=int, default=30_720)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    path = ROOT / "benchmarks" / "results" / f"ranks_{arguments.name}.json"
    if arguments.draw:
        draw(path, arguments.sets, ROOT / "docs" / "pictures" / f"ranks_{arguments.name}.png")
        return
    torch.set_num_threads(1)
    compute.COMPILE_ABOVE_FLOPS["cpu"] = 0.0
    teach_by(ExpertFolder.open(Path(arguments.experts)))
    arguments.sets.mkdir(parents=True, exist_ok=True)
    run(Bench(edgedd.load_data(arguments.data), arguments.experts, arguments.seconds), path, arguments)


if __name__ == "__main__":
    main()
