"""A training step on a device: how fast, against torch and onnxruntime-training in the same run, and in what memory.

    python benchmarks/device_step.py [--rounds 12] [--ort-training PYTHON] [--threads 2]

ConvNet-3 on 3x32x32. Contenders are processes of their own that wait while another works; a round gives every one a
turn, in changing order, and ratios are taken within a round. PYTHON is an interpreter with onnxruntime-training
1.19.2, onnx and torch; it trains a network without instance normalisation, which it cannot differentiate, and with
maximum pooling, since its gradient of average pooling stops with a floating-point exception. Writes
benchmarks/results/device_step.json.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.parameterization import LowRank
from edgedd.recipe import Recipe
from edgedd.students import student
from edgedd.synthetic_set import SyntheticSet

RESULTS = Path(__file__).parent / "results" / "device_step.json"
HERE = Path(__file__).parent
SHAPE = (3, 32, 32)
SPEEDS = ((128, 64), (32, 64), (64, 128))
WITHOUT_NORM = ((128, 64), (32, 64))
STRONG = Augmentation(flip=0.5, shift=2, scale=0.2, rotate=15, cutout=0.25, colour=0.5)
LIGHT = Augmentation(flip=0.5, shift=2)


class Contender:
    """A process that takes steps when asked."""

    def __init__(self, kind: str, python: str = sys.executable, **settings: Any) -> None:
        command = [python, str(HERE / "step_contenders.py"), kind, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self._read()) != "ready":
            if not line:
                raise SystemExit(f"{kind} did not start")

    def _read(self) -> str:
        return self._process.stdout.readline().strip()  # type: ignore[union-attr]

    def seconds(self, steps: int) -> float:
        """Seconds a step."""
        self._process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return float(self._read()) / steps

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


def random_set(augmentation: Augmentation) -> SyntheticSet:
    """128 images of noise: what they show does not matter here."""
    generator, form = np.random.default_rng(0), LowRank(SHAPE, 8, 1, 4)
    factors = {n: generator.standard_normal(s).astype(np.float32) for n, s in form.factor_shapes(130).items()}
    recipe = Recipe(batch_size=128, augmentation=augmentation)
    labels, flat = generator.dirichlet(np.ones(10), 130), np.full(3, 0.5)
    names = tuple(map(str, range(10)))
    return SyntheticSet.from_factors(
        form, factors=factors, labels=labels, mean=flat, std=flat, recipe=recipe, classes=names, provenance={}
    )


def bundle(folder: Path, name: str, augmentation: Augmentation | None = None, **network: Any) -> str:
    """A bundle's path."""
    edgedd.export(random_set(augmentation or Augmentation()), folder / name, **network)
    return str(folder / name)


def paired(contenders: dict[str, Contender], rounds: int, turn_seconds: float = 1.0) -> dict[str, Any]:
    """Milliseconds a step of each, and how many times longer each takes than the first, by rounds."""
    steps = {name: max(1, round(turn_seconds / c.seconds(2))) for name, c in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name in order:
            times[name].append(contenders[name].seconds(steps[name]))
    for contender in contenders.values():
        contender.close()
    first = next(iter(contenders))
    rows = {}
    for name, seconds in times.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds, times[first], strict=True))
        quarter = [ratios[rounds // 4], ratios[-1 - rounds // 4]]
        rows[name] = {
            "ms": round(1e3 * statistics.median(seconds), 2),
            "fastest_ms": round(1e3 * min(seconds), 2),
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(value, 3) for value in quarter],
        }
        print(f"  {name}: {rows[name]}", flush=True)
    return rows


def speed(folder: Path, width: int, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Against torch, with the floor: operations over the rate of large matrix products in the same rounds."""
    name, common = f"convnet3-w{width}", {"batch": batch, "threads": arguments.threads, "width": width, "norm": True}
    print(name, "batch", batch, flush=True)
    contenders = {"edgedd": Contender("edgedd", bundle=bundle(folder, f"w{width}", student=name), **common)}
    contenders |= {kind: Contender(kind, **common) for kind in ("torch", "torch-compile", "matrix-product")}
    rows = paired(contenders, arguments.rounds)
    rate = 2 * 2048**3 / (rows["matrix-product"]["fastest_ms"] * 1e6)
    network = student(name, SHAPE, 10)
    first_layer = 9 * SHAPE[0] * width * SHAPE[1] * SHAPE[2]
    operations = 2 * batch * (3 * network.multiply_adds - first_layer)
    floor = operations / rate / 1e6
    share = round(floor / rows["edgedd"]["fastest_ms"], 3)
    facts = {"gflops": round(operations / 1e9, 2), "rate_gflops": round(rate, 1), "floor_ms": round(floor, 2)}
    print(f"  floor {floor:.1f} ms, reached {100 * share:.0f} %", flush=True)
    return {"student": name, "batch": batch, "threads": arguments.threads, **facts, "share_of_floor": share, **rows}


def without_norm(folder: Path, width: int, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Against onnxruntime-training, on a network that it can differentiate."""
    import torch
    from torch import nn

    print("without normalisation, width", width, "batch", batch, flush=True)
    layers: list[nn.Module] = []
    for channels in (3, width, width):
        layers.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)])
    network, path = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 10)), folder / f"plain{width}.onnx"
    names = {"input_names": ["images"], "output_names": ["output"], "dynamic_axes": {"images": {0: "b"}}}
    torch.onnx.export(network, (torch.zeros(2, *SHAPE),), path, opset_version=15, dynamo=False, **names)  # type: ignore[arg-type]
    common = {"batch": batch, "threads": arguments.threads, "width": width, "norm": False, "model": str(path)}
    ours = Contender("edgedd", bundle=bundle(folder, f"plain{width}", model=path), **common)
    theirs = Contender("ort-training", arguments.ort_training, **common)
    rows = paired({"edgedd": ours, "ort-training": theirs, "torch": Contender("torch", **common)}, arguments.rounds)
    return {"student": f"convnet3-w{width} without norm", "batch": batch, "threads": arguments.threads, **rows}


def augmentation(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What augmenting adds to training from the set, as a share of the time without it."""
    print("augmentation, width 32 and 64", flush=True)
    found = {}
    for name in ("convnet3-w32", "convnet3-w64"):
        kinds = {"none": Augmentation(), "flip and shift": LIGHT, "every family": STRONG}
        made = {k: bundle(folder, f"{name}-{i}", a, student=name) for i, (k, a) in enumerate(kinds.items())}
        contenders = {k: Contender("edgedd-fit", bundle=path, threads=arguments.threads) for k, path in made.items()}
        found[name] = paired(contenders, arguments.rounds, 2.0)
    return found


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ort-training", metavar="PYTHON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {"speed": [speed(folder, *sizes, arguments) for sizes in SPEEDS]}
        results["augmentation"] = augmentation(folder, arguments)
        if arguments.ort_training:
            rows = [without_norm(folder, *sizes, arguments) for sizes in WITHOUT_NORM]
            results["onnxruntime_training_1_19_2"] = rows
    command = f"python benchmarks/device_step.py --rounds {arguments.rounds} --threads {arguments.threads}"
    command += " --ort-training PYTHON" if arguments.ort_training else ""
    RESULTS.write_text(json.dumps({**results, "command": command, **surroundings()}, indent=1) + "\n")
    print(RESULTS)


if __name__ == "__main__":
    main()
