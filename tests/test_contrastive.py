"""NT-Xent and SupCon against their formulas written as loops."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_distill_contract import CPU, SHAPE, SMALL, loop
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import networks, siamese
from edgedd.distillation.contrastive import Kind, nt_xent, sup_con
from edgedd.distillation.loop import Loop
from edgedd.distillation.methods import method_named
from edgedd.distillation.trajectory_matching import MTT
from edgedd.errors import SettingError
from edgedd.parameterization import LowRank

TEMPERATURE = 0.3


def views(count: int = 6, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(0)
    z1, z2 = (torch.from_numpy(generator.normal(size=(count, size))) for _ in range(2))
    return z1, z2


def plain(z1: torch.Tensor, z2: torch.Tensor, classes: list[int], kind: str, temperature: float = TEMPERATURE) -> float:
    """Equation 1 of SimCLR, without or with negatives of the same class, and Equation 2 of SupCon."""
    z = [row / row.norm() for row in (*z1, *z2)]
    count = len(z1)

    def likeness(i: int, j: int) -> float:
        return math.exp(float(z[i] @ z[j]) / temperature)

    total = 0.0
    for i in range(2 * count):
        other = (i + count) % (2 * count)
        same = [j for j in range(2 * count) if j != i and classes[j % count] == classes[i % count]]
        others = [j for j in range(2 * count) if j != i]
        if kind == "supcon":
            below = sum(likeness(i, j) for j in others)
            total -= sum(math.log(likeness(i, p) / below) for p in same) / len(same)
            continue
        if kind == "masked":
            others = [j for j in others if j == other or j not in same]
        total -= math.log(likeness(i, other) / sum(likeness(i, j) for j in others))
    return total / (2 * count)


def test_networks_in_bfloat16_leave_the_losses_in_float32() -> None:
    z1, z2 = (z.float() for z in views())
    classes = torch.tensor([0, 1, 1, 2, 2, 2])
    plain_losses = nt_xent(z1, z2, TEMPERATURE), sup_con(z1, z2, classes, TEMPERATURE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (nt_xent(z1, z2, TEMPERATURE), sup_con(z1, z2, classes, TEMPERATURE)) == plain_losses


@pytest.mark.parametrize("kind", ["ntxent", "masked", "supcon"])
def test_losses_are_the_papers_formulas(kind: str) -> None:
    z1, z2 = views()
    classes = [0, 1, 1, 2, 2, 2]
    labels = torch.tensor(classes)
    found = {
        "ntxent": lambda: nt_xent(z1, z2, TEMPERATURE),
        "masked": lambda: nt_xent(z1, z2, TEMPERATURE, labels),
        "supcon": lambda: sup_con(z1, z2, labels, TEMPERATURE),
    }[kind]()
    assert np.isclose(float(found), plain(z1, z2, classes, kind), rtol=1e-9)


def test_with_one_image_a_class_all_three_are_one_and_lengths_do_not_matter() -> None:
    z1, z2 = views()
    labels = torch.arange(6)
    value = float(nt_xent(z1, z2, TEMPERATURE))
    assert np.isclose(float(nt_xent(3 * z2, 0.2 * z1, TEMPERATURE, labels)), value, rtol=1e-9)
    assert np.isclose(float(sup_con(z1, z2, labels, TEMPERATURE)), value, rtol=1e-9)


@pytest.mark.parametrize("loss", ["ntxent", "supcon"])
def test_derivatives_are_those_of_finite_differences_twice(loss: str) -> None:
    """Twice, as the inner training is differentiated."""
    z1, z2 = (z[:3].clone().requires_grad_() for z in views(size=3))
    labels = torch.tensor([0, 0, 1])

    def value(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return nt_xent(a, b, TEMPERATURE, labels) if loss == "ntxent" else sup_con(a, b, labels, TEMPERATURE)

    assert torch.autograd.gradgradcheck(value, (z1, z2))


@pytest.mark.parametrize(("name", "kind"), [("dm", "ntxent"), ("dcc", "supcon"), ("dsa", "ntxent")])
def test_other_methods_take_the_term_on_top_of_their_loss(name: str, kind: Kind) -> None:
    """Their own loss comes first and draws what it draws without the term; then rows and two views are drawn."""
    losses, pulls = [], []
    for weight in (0.0, 0.7):
        method = method_named(name, SMALL[name] | {"contrastive": str(weight), "contrastive_kind": kind})
        run = loop(name, LowRank(SHAPE, 4, 1, 16))
        run = Loop(run.synthetic, method, run.real, CPU, run.generator)
        begun = run.generator.bit_generator.state
        loss, _ = run.method.loss(run.synthetic, run.real, run.state, run.generator)
        losses.append(float(loss.detach()))
        pulls.append(torch.autograd.grad(loss, run.synthetic.factors["core"])[0])
        if not weight:
            after = run.generator.bit_generator.state
    run.generator.bit_generator.state = begun
    own = run.state.passes.fresh(run.generator) if name == "dm" else run.state.parameters
    run.generator.bit_generator.state = after
    rows = np.sort(run.generator.permutation(8))
    families = siamese.STRATEGIES["natural" if name == "dsa" else "digits"]
    images = run.synthetic.images(rows).detach()
    drawn = [siamese.draw(families, run.generator, 8) for _ in range(2)]
    first, second = (networks.features(run.state.passes.network, own, siamese.apply(images, view)) for view in drawn)
    classes = [int(c) for c in run.synthetic.classes]
    expected = plain(first, second, classes, "masked" if kind == "ntxent" else kind, 0.2)
    assert np.isclose(losses[1] - losses[0], 0.7 * expected, rtol=1e-3)
    assert float((pulls[1] - pulls[0]).norm()) > 1e-4


def test_each_term_can_be_had_alone() -> None:
    """Equal draws: the direct term adds a mean of losses, all above 0; without either there is one view."""
    losses = {}
    for inner, direct in ((0.5, 0), (0.5, 0.5), (0.5, 1.0)):
        settings = SMALL["contrastive"] | {"contrastive_inner": str(inner), "contrastive_direct": str(direct)}
        run = loop("mtt", LowRank(SHAPE, 4, 1, 16))
        run = Loop(run.synthetic, method_named("contrastive", settings), run.real, CPU, run.generator)
        losses[direct] = float(run.method.loss(run.synthetic, run.real, run.state, run.generator)[0].detach())
    assert losses[0.5] > losses[0]
    assert np.isclose(losses[1.0] - losses[0], 2 * (losses[0.5] - losses[0]), rtol=1e-4)
    one, both = MTT.two_views, replace(MTT, contrastive=0.1)
    assert not one and both.two_views and both.inner_weight == both.direct_weight == 0.1
    assert replace(both, contrastive_inner=0.0).inner_weight == 0


def test_one_option_sets_the_weight_of_any_method_that_has_the_term() -> None:
    data = tiny_images(count=20, shape=SHAPE, num_classes=2)
    common: dict[str, Any] = {"ipc": 1, "rank": 3, "iterations": 1, "recipe": edgedd.Recipe(steps=1), "labels": "hard"}
    with_term, without = (
        edgedd.distill(data, method="dm", settings=SMALL["dm"], contrastive=weight, **common).to_bytes()
        for weight in (50.0, None)
    )
    assert with_term != without
    with pytest.raises(SettingError, match="method frepo has no setting 'contrastive', wanted one of"):
        edgedd.distill(data, method="frepo", contrastive=0.1, **common)
    with pytest.raises(SettingError, match="set the field of the method object"):
        edgedd.distill(data, method=MTT, contrastive=0.1, **common)
