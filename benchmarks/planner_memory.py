"""Peak resident memory of the whole device process: what edgedd.planning.memory_model says before, and what it is.

    python benchmarks/planner_memory.py [--repeats 2]

Each point is a process of its own that loads a bundle of 100 random images, takes eight steps on random images with
`Student.step` (the arena still grows in the fourth) and prints VmHWM, the largest of the repeats. Writes
benchmarks/results/planner_memory.json.
"""

import argparse
import json
import re
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
from edgedd.synthetic_set import SyntheticSet

RESULTS = Path(__file__).parent / "results" / "planner_memory.json"
SHAPES = {"1x28x28": (1, 28, 28), "3x32x32": (3, 32, 32), "3x64x64": (3, 64, 64)}
CHILD = """
import json, re, sys
import numpy as np
from edgedd.device import Student
from edgedd.device.free_memory import predicted

def resident(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

point = json.loads(sys.argv[2])
student = Student.load(sys.argv[1], **point["options"])
loaded, generator, batch = resident("VmRSS"), np.random.default_rng(0), point["batch"]
images = generator.standard_normal((batch, *student.bundle.image_shape)).astype(np.float32)
labels = generator.dirichlet(np.ones(10), batch).astype(np.float32)
said = predicted(student._sessions, student.synthetic, batch, student.micro_batch(batch))
for _ in range(8):
    student.step(images, labels, 0.01)
peak = resident("VmHWM")
found = {"measured": peak, "predicted": said.total, "loaded": loaded, "micro_batch": student.micro_batch(batch)}
print(json.dumps({**found, "activation_bytes": student.activation_bytes, "parts": said.parts()}))
"""
# Student, images, batch, mode, options of Student.load but for threads, which are 1 unless said.
POINTS: tuple[tuple[str, str, int, str, dict[str, Any]], ...] = (
    ("convnet2-w16", "1x28x28", 1, "full", {}),
    ("convnet3-w16", "1x28x28", 16, "full", {"low_memory": True}),
    ("convnet3-w32", "1x28x28", 16, "full", {}),
    ("convnet3-w64", "1x28x28", 64, "full", {"threads": 2}),
    ("convnet3-w64", "1x28x28", 64, "full", {"micro_batch": 64}),
    ("convnet3-w16", "3x32x32", 64, "full", {}),
    ("convnet3-w16", "3x32x32", 64, "full", {"micro_batch": 64}),
    ("convnet3-w32", "3x32x32", 16, "full", {}),
    ("convnet3-w32", "3x32x32", 32, "full", {"micro_batch": 32}),
    ("convnet3-w64", "3x32x32", 1, "full", {}),
    ("convnet3-w64", "3x32x32", 64, "full", {}),
    ("convnet3-w64", "3x32x32", 64, "full", {"threads": 2}),
    ("convnet3-w64", "3x32x32", 64, "full", {"low_memory": True}),
    ("convnet3-w64", "3x32x32", 64, "full", {"micro_batch": 16}),
    ("convnet3-w64", "3x32x32", 64, "full", {"micro_batch": 64}),
    ("convnet3-w64", "3x32x32", 64, "full", {"micro_batch": 32, "threads": 2}),
    ("convnet3-w64", "3x32x32", 64, "full", {"micro_batch": 16, "low_memory": True}),
    ("convnet3-w64", "3x32x32", 32, "head", {}),
    ("convnet3-w64", "3x32x32", 64, "head", {"micro_batch": 64}),
    ("convnet3-w64", "3x32x32", 32, "bias", {}),
    ("convnet3-w64", "3x32x32", 32, "bias", {"micro_batch": 32}),
    ("convnet3-w128", "3x32x32", 16, "full", {}),
    ("convnet3-w128", "3x32x32", 64, "full", {"micro_batch": 32}),
    ("convnet3-w128", "3x32x32", 16, "full", {"low_memory": True}),
    ("convnet4-w64", "3x64x64", 16, "full", {}),
    ("convnet4-w64", "3x64x64", 16, "full", {"threads": 2}),
    ("convnet4-w64", "3x64x64", 16, "full", {"low_memory": True}),
    ("convnet4-w32", "3x64x64", 64, "full", {"micro_batch": 8}),
    ("convnet4-w128", "3x64x64", 16, "full", {"micro_batch": 16}),
    ("resnet8", "3x32x32", 32, "full", {}),
    ("resnet8", "3x32x32", 32, "full", {"micro_batch": 4}),
    ("resnet8", "3x32x32", 32, "full", {"threads": 2}),
    ("resnet8", "3x32x32", 32, "head", {"low_memory": True}),
    ("mobilenet-tiny", "3x32x32", 32, "full", {}),
    ("mobilenet-tiny", "3x32x32", 16, "full", {"micro_batch": 4, "threads": 2}),
    ("mobilenet-tiny", "3x64x64", 16, "bias", {}),
    ("mlp", "1x28x28", 64, "full", {}),
    ("mlp", "3x32x32", 64, "full", {"threads": 2}),
)


def random_set(shape: tuple[int, int, int]) -> SyntheticSet:
    """100 images of noise in 10 classes."""
    generator, form = np.random.default_rng(0), LowRank(shape, 8, 1, 4)
    factors = {n: generator.standard_normal(s).astype(np.float32) for n, s in form.factor_shapes(100).items()}
    labels, flat = generator.dirichlet(np.ones(10), 100), np.full(shape[0], 0.5)
    recipe, names = Recipe(augmentation=Augmentation(flip=0.5, shift=2)), tuple(map(str, range(10)))
    return SyntheticSet.from_factors(
        form, factors=factors, labels=labels, mean=flat, std=flat, recipe=recipe, classes=names, provenance={}
    )


def bundle(folder: Path, student: str, images: str, mode: str) -> Path:
    """A bundle's folder, exported when it is not there yet."""
    path = folder / f"{student}-{images}-{mode}"
    if not path.exists():
        edgedd.export(random_set(SHAPES[images]), path, student=student, mode=mode)
    return path


def measured(path: Path, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    """What the child prints: bytes measured and predicted, and the prediction's parts."""
    point = {"batch": batch, "options": {"threads": 1, **options}}
    command = [sys.executable, "-c", CHILD, str(path), json.dumps(point)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def row(folder: Path, repeats: int, point: tuple[str, str, int, str, dict[str, Any]]) -> dict[str, Any]:
    """One line of the table."""
    student, images, batch, mode, options = point
    path = bundle(folder, student, images, mode)
    found = max((measured(path, batch, options) for _ in range(repeats)), key=lambda f: f["measured"])
    named = {"student": student, "images": images, "batch": batch, "mode": mode, "options": options}
    sizes = {"graph_bytes": (path / "train_step.onnx").stat().st_size}
    return named | found | sizes | {"ratio": round(found["predicted"] / found["measured"], 3)}


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="", help="regular expression of the points to measure; nothing is written")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    print(f"{'student':16}{'images':9}{'batch':>5} {'mode':5}{'micro':>5}{'predicted':>11}{'measured':>10}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as name:
        for point in POINTS:
            if not re.search(arguments.only, str(point)):
                continue
            r = row(Path(name), arguments.repeats, point)
            rows.append(r)
            start = f"{r['student']:16}{r['images']:9}{r['batch']:5} {r['mode']:5}{r['micro_batch']:5}"
            megabytes = f"{r['predicted'] / 1e6:8.1f} MB{r['measured'] / 1e6:7.1f} MB"
            print(f"{start}{megabytes}{r['ratio']:7.3f}  {r['options'] or ''}", flush=True)
    ratios = [r["ratio"] for r in rows]
    print(f"{len(rows)} points, predicted / measured from {min(ratios)} to {max(ratios)}")
    if arguments.only and arguments.out == RESULTS:
        return
    command = f"python benchmarks/planner_memory.py --repeats {arguments.repeats}"
    ends = {"smallest_ratio": min(ratios), "largest_ratio": max(ratios)}
    arguments.out.write_text(json.dumps({**ends, "rows": rows, "command": command, **surroundings()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
