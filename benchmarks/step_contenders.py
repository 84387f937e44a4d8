"""One contender of device_step.py in a process of its own: `python step_contenders.py KIND JSON`.

It says "ready", then takes a number of steps a line from standard input and answers with the seconds that they took.
Kinds: edgedd (a bundle), edgedd-fit (20 steps of its training), torch and torch-compile (the same ConvNet),
ort-training (onnxruntime-training's own API), matrix-product.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[], object]


def batch(settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The same images (b, 3, 32, 32) and soft labels (b, 10) for every contender."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((settings["batch"], 3, 32, 32)).astype(np.float32)
    return images, generator.dirichlet(np.ones(10), settings["batch"]).astype(np.float32)


def edgedd(settings: dict[str, Any]) -> Step:
    """`Student.step` on images from outside."""
    from edgedd.device import Student

    student = Student.load(settings["bundle"], threads=settings["threads"], micro_batch=settings.get("micro_batch"))
    images, labels = batch(settings)
    return lambda: student.step(images, labels, 0.01)


def torch_step(settings: dict[str, Any], compiled: bool = False) -> Step:
    """SGD with momentum on the ConvNet of the field, as people write it."""
    import torch
    from torch import nn

    torch.set_num_threads(settings["threads"])
    layers: list[nn.Module] = []
    for channels in (3, settings["width"], settings["width"]):
        layers.append(nn.Conv2d(channels, settings["width"], 3, padding=1, bias=not settings["norm"]))
        layers.extend([nn.InstanceNorm2d(settings["width"], affine=True)] if settings["norm"] else [])
        layers.extend([nn.ReLU(), nn.AvgPool2d(2) if settings["norm"] else nn.MaxPool2d(2)])
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * settings["width"], 10))
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, labels = (torch.tensor(array) for array in batch(settings))

    def step() -> None:
        optimizer.zero_grad()
        loss = -(torch.log_softmax(forward(images), 1) * labels).sum(1).mean()
        loss.backward()
        optimizer.step()

    return step


def ort_training(settings: dict[str, Any]) -> Step:
    """onnxruntime-training's module and SGD, on artifacts made from the same forward graph, with hard labels."""
    import tempfile

    import onnx
    from onnxruntime import SessionOptions
    from onnxruntime.training import api, artifacts

    model = onnx.load(settings["model"])
    names = [tensor.name for tensor in model.graph.initializer if len(tensor.dims) and tensor.data_type == 1]
    folder = tempfile.mkdtemp()
    kinds = {"loss": artifacts.LossType.CrossEntropyLoss, "optimizer": artifacts.OptimType.SGD}
    artifacts.generate_artifacts(model, requires_grad=names, artifact_directory=folder, **kinds)
    options = SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    state = api.CheckpointState.load_checkpoint(f"{folder}/checkpoint")
    module = api.Module(f"{folder}/training_model.onnx", state, f"{folder}/eval_model.onnx", "cpu", options)
    optimizer = api.Optimizer(f"{folder}/optimizer_model.onnx", module)
    images, labels = batch(settings)
    classes = labels.argmax(1).astype(np.int64)

    def step() -> None:
        module.train()
        module(images, classes)
        optimizer.step()
        module.lazy_reset_grad()

    return step


def edgedd_fit(settings: dict[str, Any]) -> Step:
    """Twenty steps of training from the set, augmentation and all."""
    from edgedd.device import Student

    student = Student.load(settings["bundle"], threads=settings["threads"])
    return lambda: student.fit(steps=20)


def matrix_product(settings: dict[str, Any]) -> Step:
    """One product of 2048 x 2048 matrices in float32: the rate that a step could reach."""
    import torch

    torch.set_num_threads(settings["threads"])
    left, right = torch.randn(2, 2048, 2048)
    return lambda: left @ right


CONTENDERS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "edgedd": edgedd,
    "edgedd-fit": edgedd_fit,
    "matrix-product": matrix_product,
    "torch": torch_step,
    "torch-compile": lambda settings: torch_step(settings, compiled=True),
    "ort-training": ort_training,
}

if __name__ == "__main__":
    take = CONTENDERS[sys.argv[1]](json.loads(sys.argv[2]))
    for _ in range(4):
        take()
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        for _ in range(int(line)):
            take()
        print(time.perf_counter() - begun, flush=True)
