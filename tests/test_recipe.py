"""The learning rate over a training, against plain formulas."""

import math
from collections.abc import Callable

import pytest

from edgedd.recipe import Recipe

STEPS = 40


def falling(step: int) -> float:
    return (1 + math.cos(math.pi * step / STEPS)) / 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda step: 1.0),
        ("cosine", falling),
        ("warm-cosine", lambda step: falling(step) * ((step + 1) / 4 if step < 3 else 1.0)),
        ("linear", lambda step: 1 - step / STEPS),
        ("step", lambda step: 1.0 if step <= STEPS / 2 else 0.1),
    ],
)
def test_schedules(schedule: str, expected: Callable[[int], float]) -> None:
    recipe = Recipe(student_lr=0.4, steps=STEPS, schedule=schedule)
    assert [recipe.learning_rate(step) for step in range(STEPS)] == pytest.approx(
        [0.4 * expected(step) for step in range(STEPS)]
    )


def test_a_training_of_a_few_steps_needs_no_warm_up() -> None:
    assert Recipe(student_lr=0.4, steps=5, schedule="warm-cosine").learning_rate(0) == pytest.approx(0.4)
