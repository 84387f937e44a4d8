"""Whole training steps of the graph against torch: every student, optimizer, part, and way of sharing a batch."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_students import torch_student
from training_problem import CLASSES, STRONG, Problem, assert_close, distance, every_node, open_session, random_factors

from edgedd.augmentation import Augmentation
from edgedd.errors import ExportError, SettingError
from edgedd.exporting.networks import of_student
from edgedd.exporting.training_graph import prediction_graph, training_graph
from edgedd.parameterization import Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.recipe import OPTIMIZERS, Recipe
from edgedd.students import student

RECIPE = Recipe(student_lr=0.01, momentum=0.9, weight_decay=5e-3, steps=60)
# Fifteen batch norms over seven small images amplify rounding: torch with and without mkldnn differ by 1e-4 at 1e-3.
GENTLE = replace(RECIPE, student_lr=1e-4)
STUDENTS = ("convnet2-w32", "resnet8", "mobilenet-tiny", "mlp")
MODES = ("full", "head", "bias", "last-2")


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def problem(name: str, recipe: Recipe = RECIPE, shape: tuple[int, int, int] = (3, 8, 8)) -> Problem:
    module = torch_student(name, shape, CLASSES)
    return Problem(of_student(student(name, shape, CLASSES)), recipe, module)


@pytest.mark.parametrize("name", [*STUDENTS, "convnet2-w128"])
def test_fifty_steps_equal_torch(name: str) -> None:
    p = problem(name, GENTLE if name == "mobilenet-tiny" else RECIPE)
    batches = [p.batch(4, 3) for _ in range(50)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches), p.run_torch(batches)
    assert distance(got, wanted) < 1e-4
    if not p.network.buffers:
        assert_close(got, wanted)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    assert distance(p.start, wanted) > 2e-4


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", STUDENTS)
def test_every_optimizer_equals_torch(name: str, optimizer: str, weight_decay: float) -> None:
    rate = 2e-4 if name == "mobilenet-tiny" else 1e-3
    p = problem(name, Recipe(rate, momentum=0.8, weight_decay=weight_decay, schedule="linear", optimizer=optimizer))
    batches = [p.batch(4, 3) for _ in range(10)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches), p.run_torch(batches)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    # Adam divides by the root of the squared gradient: where that is zero but for rounding, the sign is luck.
    assert distance(got, wanted) < (1e-3 if optimizer == "adamw" else 1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STUDENTS)
def test_every_part_equals_torch_and_the_rest_stays(name: str, mode: str) -> None:
    p = problem(name, GENTLE if name == "mobilenet-tiny" else RECIPE)
    batches = [p.batch(4, 3) for _ in range(5)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches, mode), p.run_torch(batches, mode)
    assert distance(got, wanted) < 1e-4
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    moved = {n for n in got if (got[n] != p.start[n]).any()}
    assert moved == {n for n in got if (wanted[n] != p.start[n]).any()}
    assert mode == "full" or 0 < len(moved) < len(p.network.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", STUDENTS)
def test_fifty_steps_of_every_network_optimizer_and_part(name: str, optimizer: str, mode: str) -> None:
    rate = {"sgd": 1e-3, "nesterov": 1e-3, "adamw": 3e-4}[optimizer] * (0.1 if name == "mobilenet-tiny" else 1)
    p = problem(name, Recipe(rate, optimizer=optimizer, steps=60, schedule="linear"))
    p.in_double()
    batches = [p.batch(4, 3) for _ in range(50)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches, mode), p.run_torch(batches, mode)
    assert distance(got, wanted) < 1e-4
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    assert distance(p.start, wanted) > 1e-6


@pytest.mark.parametrize("k, m", [(4, 2), (6, 0), (0, 5)])
def test_mixtures_with_augmentation(k: int, m: int) -> None:
    p = problem("convnet3-w8", Recipe(augmentation=STRONG, momentum=0.5, steps=3), (3, 12, 20))
    batches = [p.batch(k, m) for _ in range(3)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches), p.run_torch(batches)
    assert_close(got, wanted)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_micro_batches_change_nothing(micro_batch: int, mode: str) -> None:
    p = problem("convnet2-w8", Recipe(augmentation=Augmentation(flip=0.5, shift=1, cutout=0.3, colour=1), steps=3))
    batches = [p.batch(4, 3) for _ in range(3)]
    (got, losses), (wanted, whole) = p.run_graph(batches, mode, micro_batch), p.run_graph(batches, mode)
    assert_close(got, wanted, 1e-5)
    np.testing.assert_allclose(losses, whole, rtol=1e-5)


@pytest.mark.parametrize(
    "form",
    [Pixels((3, 8, 8)), Formation((3, 8, 8)), SharedBasis((3, 8, 8), 3, 2, half=True)],
    ids=lambda form: form.kind,
)
def test_every_kind_is_decoded_a_micro_batch_at_a_time(form: Parameterization) -> None:
    """The last micro-batches hold images from outside alone, of no rows."""
    p = problem("convnet2-w8", Recipe(momentum=0.5, steps=3))
    p.parameterization, p.factors = form, random_factors(form, 12, p.generator)
    p.labels = p.generator.dirichlet(np.ones(CLASSES), 12).astype(np.float32)
    batches = [p.batch(7, 4) for _ in range(3)]
    (got, losses), (wanted, torch_losses) = p.run_graph(batches, micro_batch=2), p.run_torch(batches)
    assert_close(got, wanted)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)


def test_a_batch_shared_among_calls_is_one_step() -> None:
    """Each call adds its part to the sums; the last, without images, moves the parameters."""
    p = problem("convnet2-w8")
    batch = p.batch(6, 2)
    session = open_session(training_graph(p.network, p.parameterization, p.recipe))
    shapes = {i.name: i.shape for i in session.get_inputs()}
    fixed = {f"p.{n}": v for n, v in p.start.items()} | {f"factors.{n}": v for n, v in p.factors.items()}
    fixed |= {n: np.zeros(s, np.float32) for n, s in shapes.items() if n.startswith("momentum.")}
    fixed |= {"labels": p.labels, "lr": np.array(0.01, np.float32)}
    fixed |= {"batch": np.array(8, np.float32), "micro_batch": np.array(3)}
    zeros = {n: np.zeros(s, np.float32) for n, s in shapes.items() if n.startswith("sum.")}

    def call(sums: dict[str, np.ndarray], rows: slice, images: slice) -> dict[str, np.ndarray]:
        part = {"rows": batch["rows"][rows], "images": batch["images"][images]}
        part["soft_labels"] = batch["soft_labels"][images]
        outputs = [o.name for o in session.get_outputs()]
        return dict(zip(outputs, session.run(outputs, fixed | sums | part), strict=True))

    whole = call(zeros, slice(6), slice(2))
    first, second = call(zeros, slice(4), slice(0)), call(zeros, slice(4, 6), slice(2))
    total = {name: first[f"next.{name}"] + second[f"next.{name}"] for name in zeros}
    last = call(total, slice(0), slice(0))
    moved = [name for name in whole if name.startswith("next.p.")]
    assert_close({n: last[n] for n in moved}, {n: whole[n] for n in moved}, 1e-6)
    assert np.isclose(first["loss"] + second["loss"], whole["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", STUDENTS)
def test_prediction_equals_torch(name: str) -> None:
    p = problem(name, shape=(1, 12, 12))
    images = p.generator.standard_normal((4, 1, 12, 12)).astype(np.float32)
    start = {f"{'p' if n in p.network.parameters else 'b'}.{n}": v for n, v in p.start.items()}
    got = open_session(prediction_graph(p.network)).run(["logits"], start | {"images": images})[0]
    p.run_torch([])
    wanted = p.module.eval()(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["convnet3-w128", "convnet6-w1024", "resnet8", "mobilenet-tiny", "mlp"])
def test_the_graph_is_small_and_describes_itself(name: str) -> None:
    network = of_student(student(name, (3, 96, 96), 1000))
    recipe = Recipe(augmentation=STRONG, optimizer="adamw")
    model = training_graph(network, LowRank((3, 96, 96), 8, 2), recipe)
    assert len(model.SerializeToString()) < 150_000
    facts: dict[str, Any] = json.loads({p.key: p.value for p in model.metadata_props}["edgedd"])
    assert facts["student"] == name and facts["image_shape"] == [3, 96, 96] and facts["classes"] == 1000
    specs = {n: (s["shape"], s["start"]) for n, s in facts["parameters"].items()}
    assert specs == {n: (list(s.shape), s.start) for n, s in network.parameters.items()}
    assert facts["trained"] == list(network.parameters) and set(facts["buffers"]) == set(network.buffers)
    assert facts["batch_statistics"] == bool(network.buffers)
    assert facts["augmentation"] == recipe.augmentation.as_dict()


def test_the_page_on_the_graph_names_every_input() -> None:
    page = (Path(__file__).parent.parent / "docs" / "training-graph.md").read_text()
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    told = {name.partition("<")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    for name, optimizer in (("resnet8", "adamw"), ("mlp", "sgd")):
        p = problem(name, Recipe(optimizer=optimizer, augmentation=STRONG))
        inputs = {i.name for i in training_graph(p.network, p.parameterization, p.recipe).graph.input}
        assert {n for n in inputs if not any(n == t or (t.endswith(".") and n.startswith(t)) for t in told)} == set()


def test_only_what_is_trained_is_differentiated() -> None:
    p = problem("convnet2-w8")
    graphs = {mode: training_graph(p.network, p.parameterization, RECIPE, mode=mode).graph for mode in MODES}
    names = {mode: {o.name for o in graph.output} for mode, graph in graphs.items()}
    head = {f"next.{s}.head.{w}" for s in ("p", "momentum") for w in ("weight", "bias")}
    assert names["head"] == {"loss", *head, "next.sum.head.weight", "next.sum.head.bias"}
    counts = {mode: len(every_node(graph)) for mode, graph in graphs.items()}
    assert counts["head"] < counts["last-2"] < counts["full"] and counts["bias"] < counts["full"]
    for mode, graph in graphs.items():
        inputs = {i.name for i in graph.input}
        assert {f"p.{n}" for n in p.start} <= inputs
        state = {n for n in inputs if n.startswith(("momentum.", "sum."))}
        assert state == {n.removeprefix("next.") for n in names[mode] if n.startswith(("next.momentum.", "next.sum."))}


def test_memory_falls_with_what_is_trained() -> None:
    p = problem("convnet3-w32", shape=(3, 16, 16))
    peaks = []
    for mode in ("full", "last-2", "head"):
        model = training_graph(p.network, p.parameterization, RECIPE, mode=mode)
        peaks.append(json.loads(model.metadata_props[0].value)["activation_bytes"])
    assert peaks[0] > 2 * peaks[2] and peaks[0] > peaks[1] >= peaks[2] >= 2 * 4 * 32 * 16 * 16


def test_impossible_requests_are_refused() -> None:
    p = problem("convnet2-w8")
    for mode, said in (
        ("all", "unknown mode 'all', wanted one of full, head, bias, last-<k>"),
        ("last-9", "network has 3"),
    ):
        with pytest.raises(SettingError, match=said):
            training_graph(p.network, p.parameterization, RECIPE, mode=mode)
    with pytest.raises(ExportError, match="images are 1x8x8, the student wants 3x8x8"):
        training_graph(p.network, Pixels((1, 8, 8)), RECIPE)
