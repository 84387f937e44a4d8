"""Trajectory matching as methods: thresholds, averages, schedules, the learned rate, resuming."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_distill_contract import CPU, SHAPE, SMALL, loop
from test_trajectory import array
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import networks, recipe_search, siamese
from edgedd.distillation.loop import Length, Loop
from edgedd.distillation.methods import method_named
from edgedd.distillation.orthonormal import absorb, changes
from edgedd.distillation.trajectory_matching import DATM, LSS, MTT, TrajectoryMatching, inner_steps
from edgedd.distillation.trajectory_state import LearnedRate
from edgedd.parameterization import LowRank, Parameterization, Pixels, SharedBasis
from edgedd.recipe import Recipe


def started(method: TrajectoryMatching, form: Parameterization) -> Loop:
    """A loop of the method whose experts are trained already."""
    run = loop("mtt", form)
    run = Loop(run.synthetic, method, run.real, CPU, run.generator)
    run.state.begin(run.synthetic, run.real, run.generator)
    return run


@pytest.mark.parametrize("bits", [16, 2])
def test_the_loss_moves_cores_mappers_and_label_logits_as_the_unrolled_one_does(bits: int) -> None:
    """Through the decoding, and at 2 bits straight through the rounding; draws repeated in the method's order."""
    method = replace(DATM, width=4, expert_count=1, latest=2, expert_epochs=2, inner_steps=4, batch=3, threshold=0.0)
    run = started(method, LowRank(SHAPE, 4, 2, bits))
    if bits < 16:
        run.synthetic.fit_scales()
    leaves = [*run.synthetic.factors.values(), run.synthetic.label_logits]
    begun = run.generator.bit_generator.state
    loss, state = method.loss(run.synthetic, run.real, run.state, run.generator)
    found = torch.autograd.grad(loss, leaves)
    run.generator.bit_generator.state = begun
    start, target = state.pair(run.generator)
    steps = inner_steps(method, state.schedule, 8, run.generator, CPU.device)
    images, labels = run.synthetic.images(), run.synthetic.soft_labels()
    weights = start.clone().requires_grad_()
    network = state.passes.network
    for step in steps:
        parts = zip(weights.split(state.passes.sizes), state.passes.shapes, strict=True)
        views = siamese.apply(images[step.rows], step.draws[0])
        outputs = networks.logits(network, [part.view(shape) for part, shape in parts], views)
        inner = -(labels[step.rows] * outputs.log_softmax(1)).sum(1).mean()
        weights = weights - 0.01 * torch.autograd.grad(inner, weights, create_graph=True)[0]
    expected = (weights - target).square().sum() / (start - target).square().sum()
    assert np.isclose(float(loss.detach()), float(expected.detach()), rtol=1e-5)
    for ours, theirs in zip(found, torch.autograd.grad(expected, leaves), strict=True):
        assert float((ours - theirs).norm()) < 1e-4 * float(theirs.norm())


def test_above_the_threshold_nothing_moves_but_the_rate() -> None:
    method: Any = method_named("datm", SMALL["datm"] | {"threshold": "0.0001", "ema": "0"})
    run = started(method, Pixels(SHAPE, 16))
    before = [values.detach().clone() for values in (*run.synthetic.factors.values(), run.synthetic.label_logits)]
    run.run(Length(iterations=3), None, None)
    after = [*run.synthetic.factors.values(), run.synthetic.label_logits]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.isclose(run.state.student_lr, 0.01 * 0.99**3)


def test_what_is_stored_is_the_average_over_the_run() -> None:
    method: Any = method_named("datm", SMALL["datm"] | {"ema": "0.3"})
    run = started(method, Pixels(SHAPE, 16))
    seen = [run.synthetic.factors["images"].detach().clone()]
    run.run(Length(iterations=4), None, lambda _: seen.append(run.synthetic.factors["images"].detach().clone()))
    average = seen[0]
    for iteration, values in enumerate(seen):
        decay = min(0.3, (1 + iteration) / (10 + iteration))
        average = decay * average + (1 - decay) * values
    assert torch.allclose(run.synthetic.factors["images"], average, atol=1e-6)
    assert not torch.allclose(seen[-1], average, atol=1e-4)


def test_settings_are_the_papers() -> None:
    one, ten = MTT.schedule(1, 10), DATM.schedule(10, 10)
    assert (one.inner_steps, one.expert_epochs, one.latest, one.last_epoch) == (50, 2, 2, 3)
    assert (one.rate, one.lr_rate, one.lr_images) == (0.01, 1e-7, 100)
    assert [ten.latest_at(it, 10_000) for it in (0, 500, 999, 1000, 9000)] == [10, 15, 19, 20, 20]
    assert DATM.schedule(50, 100).earliest == 20
    assert replace(LSS, latest=3).schedule(0.25, 10).latest_at(0, 100) == 1
    assert MTT.labels == "hard" and DATM.labels == "auto"
    short = replace(LSS, published="short")
    assert 10 * short.image_passes(30, 10) < 2 * LSS.image_passes(30, 10) and short.usual_lr(30) == 0.1


def test_the_learned_rate_moves_as_torchs_optimizers_would() -> None:
    plain = torch.tensor(0.01, requires_grad=True)
    log = torch.tensor(0.01).log().requires_grad_()
    sgd, adam = torch.optim.SGD([plain], 1e-3, momentum=0.5), torch.optim.Adam([log], 0.02, eps=1e-12)
    ours, ours_too = LearnedRate(0.01, 1e-3, adam=False), LearnedRate(0.01, 0.02, adam=True)
    for gradient in (0.3, -2.0, -1.0, 0.5):
        plain.grad, log.grad = torch.tensor(gradient), torch.tensor(gradient * ours_too.value)
        sgd.step(), adam.step()
        ours.move(gradient), ours_too.move(gradient)
    assert np.isclose(ours.value, float(plain.detach()), rtol=1e-5)
    assert np.isclose(ours_too.value, float(log.detach().exp()), rtol=1e-4)


def test_the_recipe_search_begins_with_the_rate_and_batches_that_the_set_has_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two recipes of equal pace: without momentum, and a tenth of the rate with momentum 0.9; told trials all come."""
    seen: list[Recipe] = []
    monkeypatch.setattr(recipe_search, "validate", lambda s, recipe, *_: seen.append(recipe) or recipe.momentum == 0)
    trials: list[tuple[int, int]] = []
    settings = SMALL["mtt"] | {"rate": "0.07", "batch": "5"}
    made = edgedd.distill(
        tiny_images(count=60, shape=SHAPE, num_classes=3),
        method="mtt",
        settings=settings,
        ipc=2,
        rank=3,
        iterations=2,
        on_step=lambda p: trials.append((p.step, p.total)) if p.stage == "recipe" else None,
    )
    usual, own, paced = seen[:3]
    assert (usual.student_lr, usual.momentum, usual.batch_size) == (0.02, 0.9, 128)
    assert (own.momentum, own.weight_decay, own.schedule, own.batch_size) == (0, 0, "constant", 5)
    assert own.student_lr != 0.07 and np.isclose(own.student_lr, 0.07, rtol=0.05)
    assert np.isclose(paced.student_lr, 0.1 * own.student_lr) and paced.momentum == 0.9
    assert made.recipe.student_lr == own.student_lr and made.recipe.momentum == 0
    assert trials[-1][0] == trials[-1][1] == len(seen)


@pytest.mark.parametrize(
    "form", [LowRank(SHAPE, 4, 2, 4), SharedBasis(SHAPE, 3, 2, 4, half=True)], ids=lambda f: f.kind
)
def test_mappers_become_orthonormal_and_no_image_moves(form: Parameterization) -> None:
    run = loop("mtt", form)
    factors = {name: values.detach() + 0.1 * array(3, *values.shape) for name, values in run.synthetic.factors.items()}
    average = {name: values + 0.1 * array(7, *values.shape) for name, values in factors.items()}
    before = [form.decode(each, slice(None)).clone() for each in (factors, average)]
    found = changes(form, factors)
    for each in (factors, average):
        absorb(form, each, found)
    after = [form.decode(each, slice(None)) for each in (factors, average)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True))
    mapper = factors["left"][1] if "left" in factors else factors["basis"][1].flatten(1).T
    product = mapper.T @ mapper
    assert torch.allclose(product, product[0, 0] * torch.eye(len(product)), atol=1e-5 * float(product.max()))


def test_cut_in_the_middle_and_resumed_equals_unbroken() -> None:
    unbroken, cut, resumed = (loop("lss", LowRank(SHAPE, 4, 2, 2)) for _ in range(3))
    unbroken.run(Length(iterations=7), None, None)
    cut.total = 7
    for _ in range(4):
        cut._step(None)
    resumed.load_state_dict(cut.state_dict())
    resumed.run(Length(iterations=7), None, None)
    for name, values in unbroken.synthetic.numpy_factors().items():
        assert np.array_equal(values, resumed.synthetic.numpy_factors()[name])
    assert np.array_equal(unbroken.synthetic.numpy_labels(), resumed.synthetic.numpy_labels())
    assert unbroken.state.student_lr == resumed.state.student_lr
