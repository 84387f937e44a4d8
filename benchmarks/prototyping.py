"""Does a synthetic set rank networks as the full training set does? Spearman's rank correlation over students.

    edgedd distill --data cifar10.npz --bytes 30720 --minutes 3 -o SET.safetensors
    python benchmarks/prototyping.py NAME DATA.npz SET.safetensors [--epochs 2] [--steps 300] [--seeds 1]

Each student is trained twice from the same kind of start and tested once on the same test images: on SET as a device
does (onnxruntime, the set's recipe shortened to --steps; as many as on the images compare like with like), and on all
training images with their labels for --epochs (torch, compiled in float32: where it was measured bfloat16 won 1.2x for
a ConvNet and lost 2.6x for MobileNet; SGD with momentum 0.9, batch 128, learning rate 0.02 falling along a cosine,
weight decay 5e-4, no augmentation). A few epochs are not convergence: the reference is how networks rank after the same
short training on real images. Each finished training is kept in benchmarks/results/prototyping_NAME.json, and a second
call goes on with what is missing; another SET is compared with the same trainings on images.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings

import edgedd
from edgedd.atomic import write_bytes
from edgedd.distillation import networks
from edgedd.distillation.compute import Compute
from edgedd.parameters import initial_parameters
from edgedd.students import student

STUDENTS = (
    "mlp",
    "convnet1-w16",
    "convnet2-w8",
    "convnet2-w32",
    "convnet3-w8",
    "convnet3-w16",
    "convnet3-w32",
    "convnet3-w64",
    "convnet4-w16",
    "convnet3-w16-bn",
    "convnet3-w16-gn",
    "convnet3-w16-ln",
    "convnet3-w16-none",
    "resnet8",
    "mobilenet-tiny",
)
DATA = "data"  # what a row calls all training images; a set is called by its file
BATCH, LR, MOMENTUM, WEIGHT_DECAY, TEST_BATCH = 128, 0.02, 0.9, 5e-4, 500


def by_set(synthetic: edgedd.SyntheticSet, data: edgedd.LabelledImages, name: str, steps: int, seed: int) -> float:
    """Test accuracy of a student trained on the set, as a device trains it, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        edgedd.export(synthetic, Path(folder) / "bundle", student=name)
        trained = edgedd.Student.load(Path(folder) / "bundle", threads=1)
        trained.fit(seed, steps=min(steps, synthetic.recipe.steps))
        return trained.evaluate(data.test_images, data.test_labels)


def by_data(data: edgedd.LabelledImages, name: str, epochs: int, seed: int) -> float:
    """Test accuracy of a student trained on all training images."""
    compute, network = replace(Compute.choose("cpu"), bfloat16=False), student(name, data.shape, data.num_classes)
    generator = np.random.default_rng(seed)
    parameters = [p.requires_grad_() for p in networks.fresh(network, generator, compute.device)]
    buffers = [torch.from_numpy(b) for b in initial_parameters(network.buffers(), generator).values()]
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    loss, labels = compute.compile(_loss), np.eye(data.num_classes, dtype=np.float32)[data.train_labels]
    batches = len(data.train_images) // BATCH
    for step in range(epochs * batches):
        if step % batches == 0:
            order = generator.permutation(len(data.train_images))
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / (epochs * batches)))
        rows = order[step % batches * BATCH :][:BATCH]
        images = torch.from_numpy(data.normalise(data.train_images[rows]))
        optimizer.zero_grad()
        loss(network, parameters, images, torch.from_numpy(labels[rows]), buffers).backward()
        optimizer.step()
    right = 0
    for first in range(0, len(data.test_images), TEST_BATCH):
        part = torch.from_numpy(data.normalise(data.test_images[first : first + TEST_BATCH]))
        with torch.no_grad():
            predicted = networks.logits(network, parameters, part, buffers).argmax(1).numpy()
        right += int((predicted == data.test_labels[first : first + TEST_BATCH]).sum())
    return right / len(data.test_images)


def _loss(network: Any, parameters: Any, images: Any, labels: Any, buffers: Any) -> torch.Tensor:
    return networks.soft_cross_entropy(networks.logits(network, parameters, images, buffers, True), labels)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of ranks, equal values sharing their mean rank."""
    ranks = [
        np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values]) for values in (first, second)
    ]
    return float(np.corrcoef(*ranks)[0, 1])


def summary(rows: list[dict[str, Any]], file: str) -> dict[str, Any]:
    """Correlation over the students that have both accuracies; the least of it when any one student is left out."""
    names = list(dict.fromkeys(row["student"] for row in rows))
    means = {
        (name, on): float(np.mean([row["accuracy"] for row in rows if (row["student"], row["on"]) == (name, on)]))
        for name, on in {(row["student"], row["on"]) for row in rows}
    }
    both = [name for name in names if (name, file) in means and (name, DATA) in means]
    found: dict[str, Any] = {"set": file, "students": len(both)}
    found["accuracies"] = {
        name: {"set": round(means[name, file], 4), DATA: round(means[name, DATA], 4)} for name in both
    }
    if len(both) > 3:
        first, second = (np.array([means[name, on] for name in both]) for on in (file, DATA))
        others = [np.arange(len(both)) != k for k in range(len(both))]
        found["spearman"] = round(spearman(first, second), 3)
        found["spearman_least_without_one"] = round(min(spearman(first[o], second[o]) for o in others), 3)
    return found


def described(arguments: argparse.Namespace, synthetic: edgedd.SyntheticSet) -> dict[str, Any]:
    """Of a set: what made it, the recipe, the command that compares it."""
    form, recipe = synthetic.parameterization.as_dict(), synthetic.recipe.as_dict()
    about = {"bytes": synthetic.nbytes, "ipc": synthetic.ipc, "form": form, "recipe": recipe}
    command = (
        f"python benchmarks/prototyping.py {arguments.name} {Path(arguments.data).name} {Path(arguments.set).name}"
    )
    return about | {
        "provenance": dict(synthetic.provenance),
        "steps": min(arguments.steps, synthetic.recipe.steps),
        "command": f"{command} --epochs {arguments.epochs} --steps {arguments.steps} --seeds {arguments.seeds}",
        **surroundings(),
    }


def missing(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Student, what it is trained on, seed."""
    done = {(row["student"], row["on"], row["seed"]) for row in rows}
    wanted = itertools.product(range(arguments.seeds), arguments.students, (Path(arguments.set).name, DATA))
    return [(name, on, seed) for seed, name, on in wanted if (name, on, seed) not in done]


def main() -> None:
    """Parse, run what is missing, write after each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("set")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, synthetic = edgedd.load_data(arguments.data), edgedd.SyntheticSet.load(arguments.set)
    path = RESULTS / f"prototyping_{arguments.name}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sets": {}, "rows": []}
    rows, sets = stored["rows"], stored["sets"]
    sets[Path(arguments.set).name] = described(arguments, synthetic)
    for name, on, seed in missing(arguments, rows):
        begun = time.perf_counter()
        if on == DATA:
            accuracy = by_data(data, name, arguments.epochs, seed)
        else:
            accuracy = by_set(synthetic, data, name, arguments.steps, seed)
        row = {"student": name, "on": on, "seed": seed, "accuracy": accuracy}
        rows.append(row | {"seconds": round(time.perf_counter() - begun, 1)})
        lines = [summary(rows, file) for file in sets]
        result = {"summary": lines, "data": arguments.name, "epochs": arguments.epochs, "sets": sets, "rows": rows}
        write_bytes(path, json.dumps(result, indent=1).encode() + b"\n")
        print(rows[-1], lines[-1].get("spearman"), flush=True)


if __name__ == "__main__":
    main()
