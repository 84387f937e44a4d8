"""AlexNet, VGG-11 and ResNet-18 of the field, and ConvNets with every norm: in torch, as graphs, and as they train."""

import numpy as np
import pytest
import torch
from test_networks import CLASSES, Three
from torch_students import counted_multiply_adds, state, torch_student
from training_problem import CLASSES as TRAINED_CLASSES
from training_problem import Problem, distance

from edgedd.distillation import networks
from edgedd.exporting.networks import of_student
from edgedd.recipe import Recipe
from edgedd.students import student

Shape = tuple[int, int, int]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def slow(name: str, shape: Shape) -> object:
    return pytest.param(name, shape, marks=pytest.mark.slow)


LARGE = [
    ("alexnet", (1, 28, 28)),
    slow("vgg11", (1, 28, 28)),
    ("resnet18-bn", (3, 9, 16)),
    slow("alexnet", (3, 13, 22)),
    slow("vgg11-bn", (3, 32, 64)),
    slow("resnet18-in", (1, 28, 28)),
]


@pytest.mark.parametrize(("name", "shape"), LARGE)
def test_large_students_are_torch_s_modules(name: str, shape: Shape) -> None:
    """Names, sizes and logits, with running and with batch statistics, of torch, of ours and of the graph."""
    three = Three(name, shape)
    specs = three.network.parameters() | three.network.buffers()
    assert {key: s.shape for key, s in specs.items()} == {k: tuple(v.shape) for k, v in state(three.module).items()}
    assert list(three.network.parameters()) == [key for key, _ in three.module.named_parameters()]
    assert three.network.multiply_adds == counted_multiply_adds(three.module, shape)
    wanted = three.by_module()
    with torch.no_grad():
        ours = networks.logits(three.network, three.parameters, three.images, three.buffers).numpy()
        by_batch = networks.logits(three.network, three.parameters, three.images).numpy()
    assert wanted.std() > 1e-2 and wanted.shape == (4, CLASSES)
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
    np.testing.assert_allclose(three.by_onnx(), wanted, atol=2e-5)
    np.testing.assert_allclose(by_batch, three.by_module(training=True), atol=2e-5)


def problem(name: str, shape: Shape, recipe: Recipe) -> Problem:
    module = torch_student(name, shape, TRAINED_CLASSES)
    return Problem(of_student(student(name, shape, TRAINED_CLASSES)), recipe, module)


@pytest.mark.parametrize("norm", ["bn", "gn", "ln", "none"])
def test_fifty_steps_with_every_norm_equal_torch(norm: str) -> None:
    p = problem(f"convnet2-w16-{norm}", (3, 8, 8), Recipe(0.01, momentum=0.9, weight_decay=5e-3, steps=60))
    batches = [p.batch(4, 3) for _ in range(50)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches, micro_batch=100), p.run_torch(batches)
    assert distance(got, wanted) < 1e-4
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    assert distance(p.start, wanted) > 2e-3


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("alexnet", (1, 12, 12)),
        slow("vgg11", (3, 28, 28)),
        slow("vgg11-bn", (3, 28, 28)),
        slow("resnet18-in", (3, 16, 16)),
        slow("resnet18-bn", (3, 16, 16)),
    ],
)
def test_five_steps_equal_torch(name: str, shape: Shape) -> None:
    """Instance norms of 2x2 maps: torch's float32 gradient is 4e-3 from its float64 one, the graph's 4e-5."""
    rate = 1e-4 if name == "resnet18-in" else 1e-3
    p = problem(name, shape, Recipe(rate, momentum=0.9, weight_decay=5e-4, steps=5))
    batches = [p.batch(6, 4) for _ in range(5)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches), p.run_torch(batches)
    assert distance(got, wanted) < 1e-4
    assert distance(p.start, wanted) > (1e-5 if name == "resnet18-in" else 1e-4)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
