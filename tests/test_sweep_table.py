"""The shipped table of the sweep is what was measured, and plans by it are as good as the best form that fits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgedd
from edgedd.parameterization import Parameterization, parameterization_from_dict
from edgedd.planning.choice import TABLE, candidates
from edgedd.planning.target import load_target
from edgedd.planning.target_file import write_target

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
SWEPT = {name: json.loads((RESULTS / f"sweep_{name}.json").read_text()) for name in ("cifar10", "fashion-mnist")}
POINTS = [(name, budget) for name in SWEPT for budget in sorted({r["budget_bytes"] for r in SWEPT[name]["rows"]})]
ONE_POINT = 0.01


def measured(name: str, budget: int) -> dict[Parameterization, float]:
    """Accuracy of each form that fitted a budget."""
    rows = [row for row in SWEPT[name]["rows"] if row["budget_bytes"] == budget]
    return {parameterization_from_dict(row["parameterization"]): row["accuracy"] for row in rows}


def shape_of(name: str) -> tuple[int, int, int]:
    channels, height, width = SWEPT[name]["data"]["shape"]
    return channels, height, width


def test_there_are_three_budgets_of_each_data_set() -> None:
    assert len(POINTS) == 6


@pytest.mark.parametrize(("name", "budget"), POINTS)
def test_the_table_says_what_was_measured(name: str, budget: int) -> None:
    """When this fails: python benchmarks/sweep.py --table."""
    said = {c.form: c.accuracy for c in candidates(shape_of(name), 10, budget, json.loads(TABLE.read_text()))}
    for form, accuracy in measured(name, budget).items():
        assert said[form] == pytest.approx(accuracy, abs=1e-4)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("name", "budget"), POINTS)
def test_a_plan_is_within_one_point_of_the_best_form(name: str, budget: int, tmp_path: Path) -> None:
    write_target(tmp_path / "small.toml", replace(load_target("raspberry-pi-zero-2w"), storage_bytes=budget))
    asked: dict[str, Any] = {"image_shape": shape_of(name), "num_classes": 10, "student": "convnet3-w16"}
    plan = edgedd.plan(target=str(tmp_path / "small.toml"), **asked)
    found = measured(name, budget)
    assert plan.file_bytes <= budget
    assert found[plan.parameterization] >= max(found.values()) - ONE_POINT
