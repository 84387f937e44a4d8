"""One epoch of real images by the engine and by torch: the same network, start, batches, optimizer and test images.

    python benchmarks/one_epoch.py fashion_mnist.npz [--seeds 3]

Every kind of student, SGD with momentum 0.9, batch 128, learning rate 0.02 falling along a cosine. The two differ in
rounding alone, so accuracies should agree but for what an epoch makes of that. Writes
benchmarks/results/one_epoch.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device_step import HERE
from surroundings import surroundings

import edgedd
from edgedd.parameterization import Pixels
from edgedd.synthetic_set import SyntheticSet

sys.path.insert(0, str(HERE.parent / "tests"))
from torch_students import torch_student

RESULTS = HERE / "results" / "one_epoch.json"
STUDENTS = ("convnet3-w32", "resnet8", "mobilenet-tiny", "mlp")
BATCH = 128


def bundle(folder: Path, data: edgedd.LabelledImages, name: str, steps: int) -> Path:
    """A bundle for the data's shape and normalisation; its set of one black image a class is not used."""
    factors = {"images": np.zeros((data.num_classes, *data.shape), np.float32)}
    labels, recipe = np.eye(data.num_classes), edgedd.Recipe(student_lr=0.02, steps=steps, batch_size=BATCH)
    facts: dict[str, Any] = {"mean": data.mean, "std": data.std, "classes": data.classes, "provenance": {}}
    made = SyntheticSet.from_factors(Pixels(data.shape, 8), factors=factors, labels=labels, recipe=recipe, **facts)
    edgedd.export(made, folder / name, student=name)
    return folder / name


def by_engine(path: Path, data: edgedd.LabelledImages, order: np.ndarray, seed: int) -> tuple[float, dict[str, Any]]:
    """Test accuracy after the epoch, and the parameters before it."""
    student = edgedd.Student.load(path, seed=seed)
    start, eye = student.parameters, np.eye(data.num_classes, dtype=np.float32)
    for step, rows in enumerate(order):
        images = student.normalise(data.train_images[rows])
        student.step(images, eye[data.train_labels[rows]], student.recipe.learning_rate(step))
    return student.evaluate(data.test_images, data.test_labels), start


def by_torch(name: str, data: edgedd.LabelledImages, order: np.ndarray, start: dict[str, Any], recipe: Any) -> float:
    """The same in torch."""
    network = torch_student(name, data.shape, data.num_classes).train()
    state = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, values in start.items():
            state[key].copy_(torch.tensor(values))
    optimizer = torch.optim.SGD(network.parameters(), momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    for step, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate(step)
        outputs = network(torch.tensor(data.normalise(data.train_images[rows])))
        loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(data.train_labels[rows]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    right = 0
    with torch.no_grad():
        for first in range(0, len(data.test_images), 500):
            part = torch.tensor(data.normalise(data.test_images[first : first + 500]))
            right += int((network(part).argmax(1).numpy() == data.test_labels[first : first + 500]).sum())
    return right / len(data.test_images)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    arguments = parser.parse_args()
    data, rows = edgedd.load_data(arguments.data), []
    steps = len(data.train_images) // BATCH
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.students:
            path = bundle(Path(folder), data, name, steps)
            recipe = edgedd.SyntheticSet.load(path / "set.safetensors").recipe
            row: dict[str, Any] = {"student": name, "edgedd": [], "torch": [], "seconds": {"edgedd": [], "torch": []}}
            for seed in range(arguments.seeds):
                order = np.random.default_rng(seed).permutation(len(data.train_images))[: steps * BATCH]
                order, begun = order.reshape(steps, BATCH), time.perf_counter()
                accuracy, start = by_engine(path, data, order, seed)
                middle = time.perf_counter()
                row["edgedd"].append(accuracy)
                row["torch"].append(by_torch(name, data, order, start, recipe))
                row["seconds"]["edgedd"].append(round(middle - begun, 1))
                row["seconds"]["torch"].append(round(time.perf_counter() - middle, 1))
            row["difference_points"] = round(100 * float(np.mean(row["edgedd"]) - np.mean(row["torch"])), 2)
            print(row, flush=True)
            rows.append(row)
    command = f"python benchmarks/one_epoch.py {Path(arguments.data).name} --seeds {arguments.seeds}"
    facts = {"data": Path(arguments.data).stem, "steps": steps, "batch": BATCH, "command": command}
    RESULTS.write_text(json.dumps({"rows": rows, **facts, **surroundings()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
