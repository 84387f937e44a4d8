"""How the minutes of a run are divided: what comes after distilling gets what it needs, up to its share."""

import time
from typing import Any

import pytest

from edgedd.distillation import recipe_search
from edgedd.distillation.allowance import Allowance
from edgedd.distillation.auto import CHOICE_STEPS

SIDES = (32, 32)
TRIALS = recipe_search.recipe_trials(*SIDES, wide=True)


def of(minutes: float | None, searches: bool = True, chooses: bool = True) -> Any:
    return Allowance(minutes, searches, chooses, SIDES, begun=1000.0)


def test_without_minutes_nothing_ends() -> None:
    own = of(None)
    assert own.end() is own.search_begins(0.01) is own.distilling_ends(0.01) is own.left_to_distil(0.01) is None


@pytest.mark.parametrize("minutes", [1, 5, 60])
def test_the_shares_where_no_training_was_timed(minutes: float) -> None:
    """A fifth for the search, a tenth for the choice, a twentieth for the checks."""
    own, seconds = of(minutes), 60 * minutes
    assert own.end() == pytest.approx(1000 + seconds)
    assert own.search_begins(0.0) == pytest.approx(1000 + 0.8 * seconds)
    assert own.distilling_ends(0.0) == pytest.approx(1000 + 0.65 * seconds)
    assert of(minutes, chooses=False).distilling_ends(0.0) == pytest.approx(1000 + 0.8 * seconds)


def test_a_fast_machine_keeps_no_more_than_the_trainings_take() -> None:
    own, step = of(60), 0.01
    search, choice, checks = TRIALS * 1500 * step, 4 * CHOICE_STEPS * step, 10 * 250 * step
    assert search < 0.2 * 3600
    assert own.search_begins(step) == pytest.approx(4600 - 1.25 * search)
    assert own.distilling_ends(step) == pytest.approx(4600 - 1.25 * (search + choice + checks))


def test_what_is_left_for_distilling_is_counted_from_now() -> None:
    own = Allowance(10, True, True, SIDES)
    assert own.left_to_distil(0.0) == pytest.approx(0.65 * 600, abs=1)
    assert own.left_to_distil(0.01) == pytest.approx(own.distilling_ends(0.01) - time.monotonic(), abs=0.5)


def test_a_slow_machine_keeps_its_shares() -> None:
    own, step = of(60), 0.1
    assert own.search_begins(step) == pytest.approx(4600 - 0.2 * 3600)
    assert own.distilling_ends(step) == pytest.approx(4600 - 1.25 * 4 * CHOICE_STEPS * step - 0.25 * 3600)


def test_a_search_without_time_for_a_choice_is_left_out() -> None:
    """Four trainings of 1,500 steps, of 250 where it is not `auto`; none either where a recipe is given."""
    step = 0.2 * 300 / (4 * 1500)
    assert of(5).search_begins(1.01 * step) == 1300
    assert of(5).search_begins(0.99 * step) == pytest.approx(1240)
    assert of(5, chooses=False).search_begins(1.01 * step) < 1300
    assert of(5, searches=False).search_begins(0.001) == 1300
