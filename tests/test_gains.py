"""When a run is taken to have ended, and how it then ends."""

import numpy as np
import pytest
from test_distill_contract import loop

from edgedd.distillation import gains
from edgedd.distillation.gains import Gains, gains_ended
from edgedd.distillation.loop import Length
from edgedd.parameterization import Pixels


@pytest.mark.parametrize(
    ("scores", "ended"),
    [
        ([0.3], False),
        ([0.3, 0.3], False),
        ([0.3, 0.3, 0.3], False),
        ([0.3, 0.3, 0.3, 0.3], True),
        ([0.3, 0.29, 0.29, 0.31], False),
        ([0.3, 0.31, 0.3, 0.3], False),
        ([0.3, 0.31, 0.3, 0.3, 0.311], True),
        ([0.3, 0.301, 0.301, 0.301, 0.32], False),
    ],
)
def test_three_scores_in_a_row_without_a_gain_end_it(scores: list[float], ended: bool) -> None:
    assert gains_ended(scores) is ended


def watched(scores: list[float]) -> tuple[list[int], list[float], int]:
    """Where a run of 100 was scored, its decay at every step, and how long it was."""
    run = loop("frepo", Pixels((3, 12, 8), 4))
    left, asked, decays = iter(scores), [], []

    def score(_: object) -> float:
        asked.append(run.iteration)
        return next(left)

    check = Gains(score)

    def watch(run_: object) -> None:
        decays.append(run._decay())
        check(run)

    run.watch = watch
    run.run(Length(100), None, None)
    return asked, decays, run.iteration


def test_a_run_that_gains_goes_on_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gains, "EVERY", 10)
    asked, _, iterations = watched([0.1 * k for k in range(10)])
    assert asked == [40, 50, 60, 70, 80, 90]
    assert iterations == 100


def test_a_run_that_no_longer_gains_lets_its_rates_fall_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gains, "EVERY", 10)
    asked, decays, iterations = watched([0.5] * 10)
    assert asked == [40, 50, 60, 70]
    assert iterations == 70 + int(gains.TAIL * 70)
    assert np.all(np.diff(decays) < 0)
    assert decays[-1] < 0.2
