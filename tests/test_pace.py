"""How many iterations fit before a deadline, where the pace of a run changes."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_distill_contract import loop
from test_dm import PIXELS

from edgedd.distillation.loop import Length, Loop


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, for tests to move."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def run_of(clock: list[float], seconds: Callable[[int], float]) -> Loop:
    """A run whose iteration i takes `seconds(i)`, by a loss that only moves the clock."""
    made = loop("dm", PIXELS)

    class Timed:
        lr, lr_mappers, lr_labels = 0.01, 0.0, 0.0

        def loss(self, synthetic: object, real: object, state: object, generator: np.random.Generator) -> object:
            clock[0] += seconds(made.iteration)
            return sum(values.square().sum() for values in made.synthetic.factors.values()), state

    made.method = Timed()  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (lambda i: 0.1, 298, 302),  # steady
        (lambda i: 0.1 if i < 100 else 0.4, 149, 160),  # slower from 10 s on: 100 + 20 / 0.4
        (lambda i: 0.4 if i < 50 else 0.1, 140, 152),  # faster from 20 s on: 50 + 10 / 0.1
    ],
)
def test_a_run_ends_at_its_deadline_when_its_pace_changes(
    clock: list[float], seconds: Callable[[int], float], least: int, most: int
) -> None:
    made = run_of(clock, seconds)
    made.run(Length(deadline=clock[0] + 30.0), None, None)
    assert least <= made.iteration == made.total <= most
    assert clock[0] == pytest.approx(130.0, abs=2.0)


def test_what_is_watched_takes_its_time_beside_the_run(clock: list[float]) -> None:
    made = run_of(clock, lambda i: 0.1)

    def watch(under_way: Loop) -> None:
        clock[0] += 5.0 * (under_way.iteration % 100 == 0)

    made.watch = watch
    made.run(Length(deadline=clock[0] + 30.0), None, None)
    assert made.iteration == pytest.approx(300, abs=3)
    assert torch.isfinite(made.synthetic.factors["images"]).all()


def test_a_number_of_iterations_stays(clock: list[float]) -> None:
    made = run_of(clock, lambda i: 100.0 * (i > 5))
    made.run(Length(iterations=20), None, None)
    assert made.iteration == 20
