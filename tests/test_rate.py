"""Bits in the objective: the fitted distribution, its price, and a file that meets its bytes."""

import numpy as np
import pytest
import torch
from tiny_data import tiny_images

import edgedd
from edgedd.distillation import compact_budget, rate
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import BudgetError
from edgedd.parameterization import DCT

SHAPE = (3, 12, 12)
SIDE = 6


def started(count: int = 40, step: float | None = 1.5) -> TrainableSet:
    generator = np.random.default_rng(0)
    smooth = generator.normal(size=(count, 3, 4, 4)).repeat(3, axis=2).repeat(3, axis=3).astype(np.float32)
    synthetic = TrainableSet.start(DCT(SHAPE, SIDE, 8), smooth, np.zeros((count, 2)), torch.device("cpu"))
    synthetic.step = step
    return synthetic


def stored(synthetic: TrainableSet) -> edgedd.SyntheticSet:
    return edgedd.SyntheticSet.from_factors(
        synthetic.parameterization,
        factors=synthetic.numpy_factors(),
        labels=synthetic.numpy_labels(),
        mean=np.zeros(3),
        std=np.ones(3),
        recipe=edgedd.Recipe(),
        classes=("a", "b"),
        provenance={},
        scales=synthetic.numpy_scales(),
    ).packed()


def test_codes_by_hand() -> None:
    values = torch.tensor([0.0, 1.19, 1.21, -3.19, -3.21, 20.0])
    assert rate.codes(values, 2.0).tolist() == [0, 0, 1, -1, -2, 10]


def test_the_fitted_distribution_has_the_mean_that_was_measured_and_sums_to_one() -> None:
    coded = torch.tensor([[0.0, 3.0], [2.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
    mean, theta = coded.abs().mean(0), rate.thetas(coded)
    k = torch.arange(-400, 401, dtype=torch.float64)
    for m, t in zip(mean, theta, strict=True):
        probability = (1 - t) / (1 + t) * t ** k.abs()
        assert float(probability.sum()) == pytest.approx(1)
        assert float((probability * k.abs()).sum()) == pytest.approx(float(m))


def test_bytes_are_the_cross_entropy_of_the_codes() -> None:
    synthetic = started()
    coded = rate.codes(synthetic.factors["coefficients"].detach().double(), 1.5)
    theta = rate.thetas(coded)
    bits = -torch.log2((1 - theta) / (1 + theta) * theta ** coded.abs()).sum()
    assert rate.code_bytes(synthetic) == pytest.approx(float(bits) / 8, rel=1e-4)


def test_a_coefficient_that_is_never_used_costs_next_to_nothing_and_has_a_finite_price() -> None:
    synthetic = started(1500)
    values = synthetic.factors["coefficients"]
    with torch.no_grad():
        values.mul_(1e-3)
    values.grad = torch.zeros_like(values)
    rate.Rate(100.0, weight=1.0).charge(synthetic)
    assert torch.isfinite(values.grad).all()
    assert rate.code_bytes(synthetic) < 0.01 * 1500 * 3 * SIDE**2


def test_the_price_is_what_the_next_step_away_from_zero_costs() -> None:
    synthetic = started()
    values = synthetic.factors["coefficients"]
    values.grad = torch.ones_like(values)
    rate.Rate(rate.code_bytes(synthetic), weight=2.0).charge(synthetic)
    theta = rate.thetas(rate.codes(values.detach(), 1.5))
    expected = 1 + 2.0 * -torch.log2(theta) / 1.5 / 40 * torch.sign(values.detach())
    assert torch.allclose(values.grad, expected, rtol=1e-4)


def test_the_first_price_is_a_share_of_the_methods_gradient() -> None:
    for scale in (1e-3, 1e3):
        synthetic = started()
        values = synthetic.factors["coefficients"]
        values.grad = torch.zeros_like(values)
        unit = rate.Rate(rate.code_bytes(synthetic), weight=1.0)
        unit.charge(synthetic)
        slope = float(values.grad.abs().sum())
        values.grad = torch.full_like(values, scale)
        controller = rate.Rate(1.0)
        controller.charge(synthetic)
        assert controller.weight == pytest.approx(rate.START * scale * values.numel() / slope, rel=0.05)


def after_noise(share: float | None) -> float:
    """Bytes, over those at the start, after steps along a gradient that is nothing but noise."""
    synthetic, noise = started(), torch.Generator().manual_seed(0)
    before, values = rate.code_bytes(synthetic), synthetic.factors["coefficients"]
    optimizer = torch.optim.Adam([values], lr=0.1)
    controller = None if share is None else rate.Rate(share * before)
    for _ in range(500):
        values.grad = torch.randn(values.shape, generator=noise)
        if controller:
            controller.charge(synthetic)
        optimizer.step()
    return rate.code_bytes(synthetic) / before


def test_noise_fills_all_codes_and_the_price_leads_it_to_the_bytes_asked_for() -> None:
    assert after_noise(None) > 1.5
    for share in (0.7, 1.0):
        assert after_noise(share) == pytest.approx(share, rel=0.15)


def test_the_loop_sees_what_the_file_will_hold() -> None:
    synthetic = started(step=1.5)
    synthetic.fit_scales()
    decoded = synthetic.images().detach().numpy()
    assert np.allclose(stored(synthetic).images(slice(None)), decoded, atol=1e-5)


@pytest.mark.parametrize("budget", [700, 2500])
def test_a_step_is_found_with_which_the_file_just_fits(budget: int) -> None:
    synthetic = started()
    compact_budget.fit_step(synthetic, lambda: stored(synthetic).nbytes, budget)
    assert 0.9 * budget <= stored(synthetic).nbytes <= budget


def test_a_trained_set_is_brought_within_the_bytes_at_its_step() -> None:
    synthetic = started(12, step=1.5)
    before = stored(synthetic)
    compact_budget.trim(synthetic, lambda: stored(synthetic).nbytes, before.nbytes)
    assert stored(synthetic).nbytes == before.nbytes
    budget = before.nbytes - 40
    compact_budget.trim(synthetic, lambda: stored(synthetic).nbytes, budget)
    assert budget - 20 <= stored(synthetic).nbytes <= budget
    old, new = (kept.tensors["factors.coefficients"].astype(int) - 128 for kept in (before, stored(synthetic)))
    assert synthetic.step == 1.5
    assert np.array_equal(old[old != new], np.sign(old[old != new]))
    assert not new[old != new].any()


def test_values_that_the_price_holds_at_the_edge_are_dropped_one_by_one() -> None:
    synthetic = started(12, step=1.5)
    values, edge = synthetic.factors["coefficients"], 1.5 * rate.DEAD_ZONE
    with torch.no_grad():
        ones = (values.abs() >= edge) & (values.abs() < edge + 1.5)
        nearly = edge + torch.linspace(1e-5, 2e-4, int(ones.sum()))
        values[ones] = torch.sign(values[ones]) * nearly
    budget = stored(synthetic).nbytes - 40
    compact_budget.trim(synthetic, lambda: stored(synthetic).nbytes, budget)
    assert budget - 4 <= stored(synthetic).nbytes <= budget


@pytest.mark.parametrize("rounded", [False, True])
def test_bytes_that_labels_leave_go_to_a_finer_step(rounded: bool) -> None:
    synthetic = started(40)
    with torch.no_grad():
        synthetic.label_logits.copy_(torch.linspace(-1, 1, 40)[:, None] * torch.tensor([1.0, -1.0]))
    budget, price = 1500, rate.Rate(1200.0)
    compact_budget.fit_step(synthetic, lambda: stored(synthetic).nbytes, budget)
    coarse = synthetic.step or 0.0
    if rounded:
        synthetic.fit_scales()
    with torch.no_grad():
        synthetic.label_logits.copy_(20 * torch.eye(2).repeat(20, 1))
    common = (synthetic, lambda: stored(synthetic).nbytes, budget + 70)
    compact_budget.steer(price, 200, *common)
    assert synthetic.step == coarse and price.target_bytes == 1200
    compact_budget.steer(price, 201, *common)
    assert (synthetic.step or 0.0) < coarse
    assert 0.97 * (budget + 70) <= stored(synthetic).nbytes <= budget + 70
    assert price.target_bytes == pytest.approx(rate.code_bytes(synthetic), rel=0.04)
    if rounded:
        assert np.allclose(stored(synthetic).images(slice(None)), synthetic.images().detach().numpy(), atol=1e-4)


def test_a_budget_below_the_rest_of_the_file_is_refused() -> None:
    synthetic = started()
    with pytest.raises(BudgetError, match="raise it or lower ipc"):
        compact_budget.fit_step(synthetic, lambda: stored(synthetic).nbytes, 60)


def test_any_method_keeps_within_the_bytes_with_frequencies() -> None:
    data = tiny_images(count=90, shape=SHAPE, num_classes=3)
    recipe = edgedd.Recipe(steps=2)
    made = edgedd.distill(
        data, method="dm", parameterization="dct", bytes=1500, iterations=4, width=8, recipe=recipe, labels="hard"
    )
    assert made.compact
    assert made.nbytes <= 1500
