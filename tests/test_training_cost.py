"""Work is counted as by hand, and time is that work at a core's rates, shared among workers."""

import math

import numpy as np
import pytest

from edgedd.augmentation import Augmentation
from edgedd.device.calibration import fitted
from edgedd.exporting.training_facts import facts_for
from edgedd.parameterization import LowRank, Pixels
from edgedd.planning.training_cost import STEP_NODES, STEP_PASSES, Pace, Share, Work, step_flops, step_seconds
from edgedd.recipe import Recipe
from edgedd.students import student

PLAIN = Recipe(augmentation=Augmentation())
WORK = Work(flops=10**9, moved_bytes=10**8, fixed_bytes=10**7, nodes=100)
PACE = Pace(product_gflops=10.0, move_gbytes=5.0, node_seconds=1e-5, cores=4, parallel_gain=2.5)


def test_products_of_a_head_are_counted_by_hand() -> None:
    """ConvNet of depth 1: forwards, and backwards for the last layer alone."""
    network, form = student("convnet1-w8", (3, 8, 8), 10), LowRank((3, 8, 8), 4, 1, 4)
    head = facts_for(network.name, form, 10, "head", PLAIN).work
    decoding = 2 * 3 * (4 * 4 * 8 + 8 * 4 * 8)
    linear = 8 * 4 * 4 * 10
    assert head.flops == 2 * (network.multiply_adds + linear) + decoding
    pixels = facts_for(network.name, Pixels((3, 8, 8)), 10, "head", PLAIN).work
    assert head.flops - pixels.flops == decoding


def test_everything_takes_about_three_times_the_forward_pass() -> None:
    network = student("convnet3-w32", (3, 32, 32), 10)
    full = facts_for(network.name, Pixels((3, 32, 32)), 10, "full", PLAIN).work
    first = 32 * 3 * 9 * 32 * 32  # the first layer's input needs no gradient
    assert full.flops == 2 * (3 * network.multiply_adds - first)


def test_a_step_by_hand() -> None:
    images, turns = 8, 4
    busy = images * 1e9 / 10e9 + (images * 1e8 + turns * 1e7) / 5e9 + turns * 100 * 1e-5
    alone = STEP_NODES * 1e-5 + STEP_PASSES * 4e6 / 5e9
    assert step_seconds(WORK, PACE, 4_000_000, batch=8, micro_batch=2) == pytest.approx(busy + alone)
    half = 4 * 1e9 / 10e9 + (4 * 1e8 + 2 * 1e7) / 5e9 + 2 * 100 * 1e-5
    two = step_seconds(WORK, PACE, 4_000_000, batch=8, micro_batch=2, threads=2)
    assert two == pytest.approx(half * 2 / 1.5 + alone)
    assert step_flops(WORK, 8) == 8 * 10**9


def test_workers_slow_each_other_down() -> None:
    assert PACE.slowdown(1) == 1
    assert PACE.slowdown(4) == pytest.approx(4 / 2.5)
    assert PACE.slowdown(8) == pytest.approx(8 / 2.5)
    assert Pace(1, math.inf, 0, 1, 1.0).slowdown(3) == 3


def test_rates_are_found_again_from_what_they_make() -> None:
    generator = np.random.default_rng(0)
    shares = [Share(*generator.uniform(0.1, 1, 3) * (1e9, 1e8, 1e3)) for _ in range(6)]
    assert fitted(shares, [s.seconds(PACE) for s in shares]) == pytest.approx((1e-10, 2e-10, 1e-5))
    without = Pace(10.0, math.inf, 1e-5, 1, 1.0)
    flop, byte, call = fitted(shares, [s.seconds(without) for s in shares])
    assert (flop, call) == pytest.approx((1e-10, 1e-5)) and 0 < byte < 1e-11
