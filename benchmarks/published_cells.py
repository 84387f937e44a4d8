"""Cells of the papers' tables, made here: their settings, data, images a class and evaluation, ours beside theirs.

    python benchmarks/published_cells.py NAME DATA.npz --cells dm-10 iid-10 [--device cuda] [--iterations N] --sets DIR

Pixels in 16 bits and hard labels from real images, by the papers' SGD; convnet3-w128 distils and is tested by the
papers' evaluation (`vico`). Where the papers train on all images, ours hold out a tenth; class centralisation draws
from `pool` ConvNets, not 1,000 ResNets; MTT has fewer experts, no whitening, and students at the usual rate instead of
the learned one. Each finished cell is a row of benchmarks/results/published_cells_NAME.json, and its set is kept in DIR
for cross_architecture.py; a second call goes on with what is missing.
"""

import argparse
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.atomic import write_bytes
from edgedd.commands.progress import ProgressReport

STUDENT = "convnet3-w128"


class Kind(NamedTuple):
    """A method as its paper runs it; `tiles`: images decoded from a stored one."""

    method: str
    settings: dict[str, str]
    tiles: int
    iterations: int
    evaluation: str

    @property
    def form(self) -> dict[str, Any]:
        """How images are stored."""
        tiled: dict[str, Any] = {"parameterization": "formation", "formation": 2}
        return tiled if self.tiles > 1 else {"parameterization": "pixels"}


KINDS = {
    "dm": Kind("dm", {}, 1, 20_000, "vico"),
    "iid": Kind("iid", {"base": "dm"}, 1, 20_000, "vico"),
    "idm": Kind("idm", {}, 4, 20_000, "vico"),
    "iid-idm": Kind("iid", {"base": "idm"}, 4, 20_000, "vico"),
    "dc": Kind("dc", {}, 1, 10_000, "vico-plain"),
    "dcc": Kind("dcc", {}, 1, 10_000, "vico-plain"),
    "dsa": Kind("dsa", {}, 1, 10_000, "vico"),
    "dsac": Kind("dsac", {}, 1, 10_000, "vico"),
    "mtt": Kind("mtt", {"expert_count": "5"}, 1, 5_000, "vico"),
}
# The papers' test accuracies in percent (tables of NCFM and of the papers' own code), CIFAR-10.
PUBLISHED = {
    "dm": {1: 26.0, 10: 48.9, 50: 63.0},
    "idm": {1: 45.6, 10: 58.6, 50: 67.5},
    "iid-idm": {1: 47.1, 10: 59.9, 50: 69.0},
    "dc": {1: 28.3, 10: 44.9, 50: 53.9},
    "dsa": {1: 28.8, 10: 52.1, 50: 60.6},
    "dcc": {1: 32.9, 10: 49.4, 50: 61.6},
    "dsac": {1: 34.0, 10: 54.5, 50: 64.2},
    "mtt": {1: 46.3, 10: 65.3, 50: 71.6},
}


class Cells:
    """The results of a data set: a row a cell and seed. Several processes may add to them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / f"published_cells_{name}.json"

    def rows(self) -> list[dict[str, Any]]:
        """Those that are there."""
        found: list[dict[str, Any]] = json.loads(self.path.read_text())["rows"] if self.path.exists() else []
        return found

    def add(self, row: dict[str, Any]) -> None:
        """Write one more, in order."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            rows = sorted([*self.rows(), row], key=lambda r: (r["cell"], r["iterations"], r["seed"]))
            write_bytes(self.path, json.dumps({"rows": rows}, indent=1).encode() + b"\n")
        finally:
            os.close(folder)


def distilled(kind: Kind, ipc: int, data: edgedd.LabelledImages, seed: int, arguments: argparse.Namespace) -> Any:
    """The set of a cell."""
    with ProgressReport() as progress:
        return edgedd.distill(
            data,
            method=kind.method,
            settings={"optimizer": "sgd", **kind.settings},
            ipc=kind.tiles * ipc,
            bits=16,
            labels="hard",
            iterations=arguments.iterations or kind.iterations,
            recipe=edgedd.Recipe(),
            seed=seed,
            device=arguments.device,
            on_step=lambda step: progress.report(*step),
            **kind.form,
        )


def run(cell: str, data: edgedd.LabelledImages, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    name, ipc = cell.rsplit("-", 1)
    kind, begun = KINDS[name], time.perf_counter()
    synthetic = distilled(kind, int(ipc), data, seed, arguments)
    seconds, length = time.perf_counter() - begun, arguments.iterations or kind.iterations
    arguments.sets.mkdir(parents=True, exist_ok=True)
    synthetic.save(arguments.sets / f"{arguments.name}_{cell}_{length}_{seed}.safetensors")
    how = {"recipe": kind.evaluation, "seeds": arguments.trainings, "device": arguments.device}
    result = edgedd.evaluate(synthetic, data, [STUDENT], **how)[0]
    return {
        "cell": cell,
        "method": kind.method,
        "settings": kind.settings,
        "ipc": int(ipc),
        "seed": seed,
        "iterations": length,
        "papers_iterations": kind.iterations,
        "published": PUBLISHED.get(name, {}).get(int(ipc)) if arguments.name == "cifar10" else None,
        "accuracy": result["accuracy"],
        "accuracies": result["accuracies"],
        "evaluation": result["recipe"],
        "epochs": result["epochs"],
        "distil_seconds": round(seconds, 1),
    }


def main() -> None:
    """Parse, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--cells", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data, results = edgedd.load_data(arguments.data), Cells(arguments.name, arguments.results)
    command = f"python benchmarks/published_cells.py {arguments.name} {Path(arguments.data).name} --cells "
    command += f"{' '.join(arguments.cells)} --seeds {' '.join(map(str, arguments.seeds))}"
    command += f" --iterations {arguments.iterations}" if arguments.iterations else ""
    command += f" --trainings {arguments.trainings} --device {arguments.device}"
    for seed in arguments.seeds:
        for cell in arguments.cells:
            key = (cell, arguments.iterations or KINDS[cell.rsplit("-", 1)[0]].iterations, seed)
            if key in {(row["cell"], row["iterations"], row["seed"]) for row in results.rows()}:
                continue
            row = run(cell, data, seed, arguments)
            results.add(row | {"command": command} | surroundings(arguments.device))
            print(f"{key}: {100 * row['accuracy']:.1f} %, published {row['published']}", flush=True)


if __name__ == "__main__":
    main()
