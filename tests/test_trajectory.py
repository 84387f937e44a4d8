"""The adjoint against automatic differentiation of the unrolled training, and against the authors' code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_distill_contract import CPU

from edgedd.distillation import networks, siamese
from edgedd.distillation.contrastive import Contrast
from edgedd.distillation.flat_passes import FlatPasses
from edgedd.distillation.trajectory import Gradients, InnerTraining, Step
from edgedd.students import student

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trajectory_matching.json").read_text())
NETWORK = student("convnet2-w4", (3, 8, 8), 3)
RATE = 0.3


def array(seed: int, *shape: int) -> torch.Tensor:
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.tensor(np.sin(0.37 * i * (1 + 0.1 * seed) + 0.002 * i * i + seed).reshape(shape), dtype=torch.float32)


def their_weights(base: int, scale: float, gain: float) -> torch.Tensor:
    """In the order of the authors' parameters (k), without the biases of convolutions."""
    shapes = [spec.shape for spec in NETWORK.parameters().values()]
    parts = []
    for k, shape in zip((0, 2, 3, 4, 6, 7, 8, 9), shapes, strict=True):
        weight = 3 * scale if len(shape) > 1 else scale
        parts.append((gain if k in (2, 6) else 0.0) + weight * array(base + k, *shape).flatten())
    return torch.cat(parts)


@pytest.mark.parametrize("paper", ["mtt", "datm"])
def test_loss_and_gradients_are_those_of_the_authors_code(paper: str) -> None:
    start = their_weights(20, 0.1, 1.0)
    steady = torch.cat(
        [0.05 * array(60 + k, *p.shape).flatten() for k, p in zip((0, 2, 3, 4, 6, 7, 8, 9), split(start), strict=True)]
    )
    target = start + steady
    logits = (2 * array(41, 6, 3)).requires_grad_()
    labels = logits.softmax(1) if paper == "datm" else torch.eye(3)[[0, 0, 1, 1, 2, 2]]
    rows = ([0, 1, 2, 3], [4, 5, 0, 2], [1, 3, 5, 4])
    steps = [Step(torch.tensor(some), (siamese.Draw("", np.empty((1, 3))),)) for some in rows]
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    inner = InnerTraining(FlatPasses(NETWORK, CPU), array(40, 6, 3, 8, 8), labels.detach(), classes, steps, 0.1)
    weights = inner.weights(start)
    length = (start - target).square().sum()
    expected = GOLDEN[paper]
    assert np.isclose(float((weights[-1] - target).square().sum() / length), expected["loss"], rtol=1e-5)
    found = inner.gradients(weights, 2 * (weights[-1] - target) / length)
    assert np.isclose(found.rate, expected["to_rate"], rtol=1e-4)
    assert np.isclose(float(found.images.norm()), expected["images_norm"], rtol=1e-4)
    assert np.allclose(found.images[2, 1, 3].numpy(), expected["images_row"], atol=1e-6)
    if paper == "datm":
        (labels * found.labels).sum().backward()
        assert logits.grad is not None
        assert np.allclose(logits.grad.flatten().numpy(), expected["logits"], atol=2e-6)


def split(weights: torch.Tensor) -> list[torch.Tensor]:
    return FlatPasses(NETWORK, CPU).parameters(weights)


def problem(
    contrast: Contrast | None, momentum: float, views: int, steps: int = 5
) -> tuple[InnerTraining, torch.Tensor]:
    """Batches of 5 of 8 images, some rows more often than others, in chunks of 3; and weights to start from."""
    generator = np.random.default_rng(0)
    passes = FlatPasses(NETWORK, CPU, contrast)
    passes.chunk = 3
    drawn = [tuple(siamese.draw(siamese.NATURAL, generator, 5) for _ in range(views)) for _ in range(steps)]
    chosen = [Step(torch.from_numpy(generator.integers(0, 8, 5)), draws) for draws in drawn]
    images = torch.from_numpy(generator.normal(size=(8, 3, 8, 8))).float()
    labels = torch.from_numpy(generator.dirichlet(np.ones(3), 8)).float()
    start = torch.cat([p.flatten() for p in networks.fresh(NETWORK, generator, CPU.device)])
    return InnerTraining(passes, images, labels, torch.arange(8) % 3, chosen, RATE, momentum), start


def unrolled(
    inner: InnerTraining, start: torch.Tensor, end: torch.Tensor, direct: float = 0.0, exact: bool = True
) -> Gradients:
    """Of |theta_N - end|^2, by torch alone: all steps in one graph. Not `exact`: each theta_n a constant."""
    images, labels = inner.images.clone().requires_grad_(), inner.labels.clone().requires_grad_()
    rate, weights = torch.tensor(inner.rate, requires_grad=True), start.clone().requires_grad_()
    moving, alike = torch.zeros_like(start), torch.zeros(())
    contrast = inner.passes.contrast
    end_weights = weights
    for step in inner.steps:
        views = [siamese.apply(images[step.rows], drawn) for drawn in step.draws]
        parts = weights.split(inner.passes.sizes)
        own = [part.view(shape) for part, shape in zip(parts, inner.passes.shapes, strict=True)]
        features = networks.features(NETWORK, own, views[0])
        outputs = features @ own[-2].T + own[-1]
        loss = -(labels[step.rows] * outputs.log_softmax(1)).sum(1).mean()
        classes = inner.classes[step.rows]
        if contrast.weight:
            loss = loss + contrast.weight * contrast.loss(features, networks.features(NETWORK, own, views[1]), classes)
        if direct:
            constant = [p.detach() for p in own]
            both = [networks.features(NETWORK, constant, view) for view in views]
            alike = alike + contrast.loss(*both, classes) / len(inner.steps)
        moving = inner.momentum * moving + torch.autograd.grad(loss, weights, create_graph=True)[0]
        end_weights = end_weights - rate * moving
        weights = end_weights if exact else end_weights.detach().requires_grad_()
    ((end_weights - end).square().sum() + direct * alike).backward()
    assert images.grad is not None and labels.grad is not None and rate.grad is not None
    return Gradients(images.grad, labels.grad, float(rate.grad), float(alike.detach()))


CASES = {
    "plain": (None, 0.0, 0.0),
    "momentum": (None, 0.9, 0.0),
    "ntxent": (Contrast("ntxent", 0.2, 0.3), 0.5, 0.0),
    "supcon": (Contrast("supcon", 0.2, 0.3), 0.0, 0.0),
    "direct": (Contrast("ntxent", 0.2, 0.0), 0.5, 0.7),
    "both": (Contrast("supcon", 0.5, 0.3), 0.0, 0.7),
}


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_is_autograd_through_the_unrolled_training(case: str) -> None:
    contrast, momentum, direct = CASES[case]
    inner, start = problem(contrast, momentum, 2 if contrast else 1)
    end = start + 0.05 * array(1, len(start))
    weights = inner.weights(start)
    found = inner.gradients(weights, 2 * (weights[-1] - end), direct)
    expected = unrolled(inner, start, end, direct)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert float((ours - theirs).norm()) < 1e-5 * float(theirs.norm())
    assert np.isclose(found.rate, expected.rate, rtol=1e-5)
    assert np.isclose(found.contrast, expected.contrast, rtol=1e-5)


def test_tesla_leaves_out_what_goes_through_earlier_steps() -> None:
    inner, start = problem(None, 0.0, 1)
    end = start + 0.05 * array(1, len(start))
    weights = inner.weights(start)
    found = inner.gradients(weights, 2 * (weights[-1] - end), exact=False)
    expected, exact = unrolled(inner, start, end, exact=False), unrolled(inner, start, end)
    assert float((found.images - expected.images).norm()) < 1e-5 * float(expected.images.norm())
    assert float((found.images - exact.images).norm()) > 1e-2 * float(exact.images.norm())


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most that torch held at once, over what it held before, as its allocator tells the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    del kept
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())


def test_memory_grows_with_the_steps_by_the_stored_weights_alone() -> None:
    def ours(steps: int) -> int:
        inner, start = problem(None, 0.9, 1, steps)

        def run() -> Any:
            weights = inner.weights(start)
            return weights, inner.gradients(weights, 2 * weights[-1])

        return peak_bytes(run)

    def plain(steps: int) -> int:
        inner, start = problem(None, 0.9, 1, steps)
        return peak_bytes(lambda: unrolled(inner, start, torch.zeros_like(start)))

    ours(2)
    stored = 4 * sum(FlatPasses(NETWORK, CPU).sizes)
    assert ours(20) - ours(12) < 8 * stored * 1.05
    assert plain(12) - plain(4) > 8 * stored * 20
