"""Whole training steps of the graph against torch, and its parts against numpy and torch."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from edgedd.augmentation import Augmentation, Draw, draw
from edgedd.errors import ExportError, SettingError
from edgedd.exporting.augment import augment
from edgedd.exporting.builder import INT64, GraphBuilder
from edgedd.exporting.decode import decode, factor_inputs
from edgedd.exporting.training_graph import MODES, prediction_graph, trained_names, training_graph
from edgedd.parameterization import LowRank, Parameterization, Pixels
from edgedd.recipe import Recipe
from edgedd.students import ConvNet, initial_parameters, student

CLASSES = 5
STRONG = Augmentation(flip=0.5, shift=2, scale=0.2, rotate=15, cutout=0.4, colour=1)
Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two runtimes that both wait for work on all cores slow each other down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert model.ir_version <= 9 and [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def torch_logits(network: ConvNet, p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = network.first_padding
    x = F.pad(x, (left, right, top, bottom))
    for i in range(network.depth):
        x = F.conv2d(x, p[f"block{i}.conv.weight"], padding=int(i > 0))
        x = F.instance_norm(x, weight=p[f"block{i}.norm.weight"], bias=p[f"block{i}.norm.bias"], eps=1e-5)
        x = F.avg_pool2d(F.relu(x), 2)
    return F.linear(x.flatten(1), p["head.weight"], p["head.bias"])


def torch_augment(x: torch.Tensor, augmentation: Augmentation, drawn: Draw) -> torch.Tensor:
    affine, cutout, colour = (torch.tensor(array) for array in drawn)
    if augmentation.colour:
        brightness, saturation, contrast = colour.view(-1, 3, 1, 1, 1).unbind(1)
        x = x + brightness
        if x.shape[1] > 1:
            x = (x - x.mean(1, keepdim=True)) * saturation + x.mean(1, keepdim=True)
        x = (x - x.mean((1, 2, 3), keepdim=True)) * contrast + x.mean((1, 2, 3), keepdim=True)
    if augmentation.moves:
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if augmentation.cutout:
        y_side, x_side = ((2 * torch.arange(n) + 1) / n - 1 for n in x.shape[2:])
        in_x = (x_side - cutout[:, :1]).abs() <= cutout[:, 2:3]
        in_y = (y_side - cutout[:, 1:2]).abs() <= cutout[:, 3:]
        x = x.masked_fill((in_y[:, :, None] & in_x[:, None, :])[:, None], 0.0)
    return x


def random_factors(parameterization: Parameterization, count: int, generator: np.random.Generator) -> Arrays:
    shapes = parameterization.factor_shapes(count)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def soft(count: int, generator: np.random.Generator) -> np.ndarray:
    return generator.dirichlet(np.ones(CLASSES), count).astype(np.float32)


class Problem:
    """A set, outside images and a network, and one step of each kind on the same numbers."""

    def __init__(self, name: str, recipe: Recipe, shape: tuple[int, int, int] = (3, 16, 16)) -> None:
        self.network, self.recipe = student(name, shape, CLASSES), recipe
        self.parameterization = LowRank(shape, 4, 2)
        generator = np.random.default_rng(0)
        self.factors = random_factors(self.parameterization, 10, generator)
        self.labels = soft(10, generator)
        self.start = initial_parameters(self.network.parameters(), generator)
        self.generator = generator

    def batch(self, k: int, m: int) -> Arrays:
        shape = self.network.shape
        drawn = draw(self.recipe.augmentation, k + m, *shape[1:], self.generator)
        return {
            "rows": self.generator.permutation(10)[:k].astype(np.int64),
            "images": self.generator.standard_normal((m, *shape)).astype(np.float32),
            "soft_labels": soft(m, self.generator),
            **{f"augment.{name}": array for name, array in drawn._asdict().items()},
        }

    def run_graph(self, batches: list[Arrays], mode: str = "full") -> tuple[Arrays, list[float]]:
        session = open_session(training_graph(self.network, self.parameterization, self.recipe, mode=mode))
        names = {i.name for i in session.get_inputs()}
        state = {f"p.{n}": v for n, v in self.start.items()}
        state |= {f"momentum.{n}": np.zeros_like(v) for n, v in self.start.items() if f"momentum.{n}" in names}
        fixed = {f"factors.{n}": v for n, v in self.factors.items()} | {"labels": self.labels}
        losses, outputs = [], [o.name for o in session.get_outputs()]
        for i, batch in enumerate(batches):
            rate = {"lr": np.array(self.recipe.learning_rate(i), np.float32)}
            given = {n: v for n, v in batch.items() if n in names}
            results = dict(zip(outputs, session.run(outputs, state | fixed | given | rate), strict=True))
            losses.append(float(results.pop("loss")))
            state |= {n.removeprefix("next."): v for n, v in results.items()}
        return {n.removeprefix("p."): v for n, v in state.items() if n.startswith("p.")}, losses

    def run_torch(self, batches: list[Arrays], mode: str = "full") -> tuple[Arrays, list[float]]:
        p = {n: torch.tensor(v) for n, v in self.start.items()}
        trained = [p[n].requires_grad_() for n in trained_names(self.network, mode)]
        optimizer = torch.optim.SGD(
            trained, lr=1.0, momentum=self.recipe.momentum, weight_decay=self.recipe.weight_decay
        )
        losses = []
        for i, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = self.recipe.learning_rate(i)
            decoded = self.parameterization.decode(self.factors, batch["rows"])
            x = torch.cat([torch.tensor(decoded), torch.tensor(batch["images"])])
            y = torch.cat([torch.tensor(self.labels[batch["rows"]]), torch.tensor(batch["soft_labels"])])
            drawn = Draw(*(batch[f"augment.{name}"] for name in Draw._fields))
            logits = torch_logits(self.network, p, torch_augment(x, self.recipe.augmentation, drawn))
            loss = -(F.log_softmax(logits, 1) * y).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return {n: v.detach().numpy() for n, v in p.items()}, losses


def assert_close(got: Arrays, wanted: Arrays, tolerance: float = 1e-4) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        difference = np.linalg.norm(got[name] - array) / max(np.linalg.norm(array), 1e-3)
        assert difference < tolerance, f"{name}: {difference}"


RECIPE = Recipe(student_lr=0.01, momentum=0.9, weight_decay=5e-3, steps=60)


@pytest.mark.parametrize("name", ["convnet2-w32", "convnet2-w128"])
def test_fifty_steps_equal_torch(name: str) -> None:
    problem = Problem(name, RECIPE, (3, 8, 8))
    batches = [problem.batch(4, 3) for _ in range(50)]
    (got, losses), (wanted, torch_losses) = problem.run_graph(batches), problem.run_torch(batches)
    assert_close(got, wanted)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    assert max(np.abs(got[n] - problem.start[n]).max() for n in got) > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k, m", [(4, 2), (6, 0), (0, 5)])
def test_steps_of_each_mode_and_mixture_with_augmentation(mode: str, k: int, m: int) -> None:
    problem = Problem("convnet3-w8", Recipe(augmentation=STRONG, momentum=0.5, steps=3), (3, 12, 20))
    batches = [problem.batch(k, m) for _ in range(3)]
    (got, losses), (wanted, torch_losses) = problem.run_graph(batches, mode), problem.run_torch(batches, mode)
    assert_close(got, wanted)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    changed = {name for name in got if (got[name] != problem.start[name]).any()}
    assert changed == set(trained_names(problem.network, mode))


def test_prediction_equals_torch() -> None:
    network = student("convnet3-w16", (1, 28, 28), CLASSES)
    generator = np.random.default_rng(0)
    start = initial_parameters(network.parameters(), generator)
    images = generator.standard_normal((4, 1, 28, 28)).astype(np.float32)
    session = open_session(prediction_graph(network))
    got = session.run(None, {f"p.{n}": v for n, v in start.items()} | {"images": images})[0]
    wanted = torch_logits(network, {n: torch.tensor(v) for n, v in start.items()}, torch.tensor(images))
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "parameterization",
    [Pixels((3, 8, 9)), LowRank((3, 8, 9), 3), LowRank((1, 9, 8), 3, 2), LowRank((3, 8, 8), 8, 3)],
    ids=str,
)
@pytest.mark.parametrize("rows", [[0, 6, 3, 3, 5], [1], []], ids=len)
def test_decoding_in_the_graph_equals_numpy_and_torch(parameterization: Parameterization, rows: list[int]) -> None:
    b = GraphBuilder()
    factors = random_factors(parameterization, 7, np.random.default_rng(0))
    images = decode(b, parameterization, factor_inputs(b, parameterization), b.input("rows", ("k",), INT64))
    index = np.array(rows, np.int64)
    feeds = {f"factors.{n}": v for n, v in factors.items()} | {"rows": index}
    got = open_session(b.model({images: ["k", *parameterization.shape]})).run(None, feeds)[0]
    in_torch = parameterization.decode({n: torch.tensor(v) for n, v in factors.items()}, index)
    np.testing.assert_allclose(got, parameterization.decode(factors, index), atol=1e-5)
    np.testing.assert_allclose(got, in_torch.numpy(), atol=1e-5)


FAMILIES = [
    Augmentation(),
    Augmentation(flip=0.5),
    Augmentation(shift=3, scale=0.3, rotate=30),
    Augmentation(cutout=0.5),
    Augmentation(colour=0.7),
    STRONG,
]


@pytest.mark.parametrize("augmentation", FAMILIES, ids=lambda a: "+".join(a.as_dict()) or "none")
@pytest.mark.parametrize("shape", [(3, 9, 12), (1, 8, 8)], ids=str)
def test_augmentation_in_the_graph_equals_torch(augmentation: Augmentation, shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((6, *shape)).astype(np.float32)
    drawn = draw(augmentation, 6, *shape[1:], generator)
    b = GraphBuilder()
    output = b.node("Identity", augment(b, augmentation, shape, b.input("images", ("b", *shape))))
    session = open_session(b.model({output: ["b", *shape]}))
    wanted_inputs = {"images"} | {
        f"augment.{name}"
        for name, on in zip(Draw._fields, (augmentation.moves, augmentation.cutout, augmentation.colour), strict=True)
        if on
    }
    assert {i.name for i in session.get_inputs()} == wanted_inputs
    feeds = {"images": x} | {f"augment.{n}": a for n, a in drawn._asdict().items() if f"augment.{n}" in wanted_inputs}
    got = session.run(None, feeds)[0]
    np.testing.assert_allclose(got, torch_augment(torch.tensor(x), augmentation, drawn).numpy(), atol=2e-5)


def test_a_mirror_is_a_mirror() -> None:
    """By arithmetic: flip alone, drawn for certain, reverses the columns."""
    augmentation, x = Augmentation(flip=1.0), np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    b = GraphBuilder()
    output = augment(b, augmentation, (1, 8, 8), b.input("images", ("b", 1, 8, 8)))
    drawn = draw(augmentation, 1, 8, 8, np.random.default_rng(0))
    session = open_session(b.model({output: ["b", 1, 8, 8]}))
    got = session.run(None, {"images": x, "augment.affine": drawn.affine})[0]
    np.testing.assert_allclose(got, x[..., ::-1], atol=1e-4)


@pytest.mark.parametrize("name", ["convnet3-w128", "convnet6-w1024"])
def test_the_graph_is_small_and_describes_itself(name: str) -> None:
    network = student(name, (3, 96, 96), 1000)
    recipe = Recipe(augmentation=STRONG)
    model = training_graph(network, LowRank((3, 96, 96), 8, 2), recipe, student=name)
    assert len(model.SerializeToString()) < 150_000
    facts: dict[str, Any] = json.loads({p.key: p.value for p in model.metadata_props}["edgedd"])
    assert facts["student"] == name and facts["image_shape"] == [3, 96, 96] and facts["classes"] == 1000
    specs = {n: (s["shape"], s["start"]) for n, s in facts["parameters"].items()}
    assert specs == {n: (list(s.shape), s.start) for n, s in network.parameters().items()}
    assert facts["trained"] == list(network.parameters())
    assert facts["augmentation"] == recipe.augmentation.as_dict()


def test_frozen_parameters_are_not_differentiated() -> None:
    problem = Problem("convnet2-w8", RECIPE)
    graphs = {
        mode: training_graph(problem.network, problem.parameterization, RECIPE, mode=mode).graph for mode in MODES
    }
    names = {mode: {o.name for o in graph.output} for mode, graph in graphs.items()}
    assert names["head"] == {"loss", *(f"next.{s}.head.{w}" for s in ("p", "momentum") for w in ("weight", "bias"))}
    for mode, graph in graphs.items():
        inputs = {i.name for i in graph.input}
        assert {f"p.{n}" for n in problem.start} <= inputs
        assert {n for n in inputs if n.startswith("momentum.")} == {
            n.removeprefix("next.") for n in names[mode] if n.startswith("next.momentum.")
        }
    assert "LayerNormalization" not in {node.op_type for node in graphs["head"].node}


def test_memory_falls_with_what_is_trained() -> None:
    problem = Problem("convnet3-w32", RECIPE)
    peaks = []
    for mode in ("full", "head"):
        model = training_graph(problem.network, problem.parameterization, RECIPE, mode=mode)
        peaks.append(json.loads(model.metadata_props[0].value)["activation_bytes"])
    assert peaks[0] > 2 * peaks[1] >= 2 * 4 * 32 * 16 * 16


def test_impossible_requests_are_refused() -> None:
    problem = Problem("convnet2-w8", RECIPE)
    with pytest.raises(SettingError, match="mode 'all', wanted one of full, head, bias"):
        training_graph(problem.network, problem.parameterization, RECIPE, mode="all")
    with pytest.raises(ExportError, match="images are 1x8x8, the student wants 3x16x16"):
        training_graph(problem.network, Pixels((1, 8, 8)), RECIPE)
