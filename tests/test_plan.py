"""A plan keeps to a board's budgets, follows measured accuracy, and refuses in one line what cannot be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_data import tiny_images

import edgedd
from edgedd.errors import BudgetError, EdgeddError, SettingError, TargetError
from edgedd.parameterization import LowRank
from edgedd.planning import choice, planner
from edgedd.planning.choice import candidates, judged, relative_budget
from edgedd.planning.target import load_target
from edgedd.planning.target_file import write_target

SHAPE, BOARD = (3, 16, 16), "raspberry-pi-zero-2w"
TABLE = {
    "3": {
        "data": "made up",
        "forms": [
            {"kind": "low_rank", "rank": 0.25, "subspaces": 1, "bits": 4, "measured": [[0.25, 0.4], [4, 0.5]]},
            {"kind": "low_rank", "rank": 0.5, "subspaces": 1, "bits": 4, "measured": [[1, 0.3], [4, 0.6]]},
            {"kind": "pixels", "bits": 8, "measured": [[4, 0.45]]},
        ],
    }
}
pytestmark = pytest.mark.usefixtures("own")


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of three forms, whatever is shipped."""
    monkeypatch.setattr(choice, "sweep", lambda: TABLE)


def planned(**wanted: Any) -> Any:
    asked: dict[str, Any] = {"image_shape": SHAPE, "num_classes": 10, "target": BOARD, "student": "convnet2-w16"}
    return edgedd.plan(**{**asked, **wanted})


def board(tmp_path: Path, **changes: Any) -> Path:
    """The board with other figures, as a file."""
    path = tmp_path / "altered.toml"
    write_target(path, replace(load_target(BOARD), **changes))
    return path


UNIT = 10 * 3 * 16 * 16  # bytes of a uint8 image a class


@pytest.mark.parametrize(
    ("relative", "wanted"),
    [(0.25, 0.4), (1, 0.45), (2, 0.475), (4, 0.5), (100, 0.5), (0.01, 0.4)],
)
def test_accuracy_is_read_off_a_line_in_the_logarithm(relative: float, wanted: float) -> None:
    accuracy, _ = judged(TABLE["3"]["forms"][0]["measured"], relative, 0.25)
    assert accuracy == pytest.approx(wanted)


def test_a_form_counts_from_the_smallest_budget_that_held_it() -> None:
    assert judged([[1, 0.3]], 0.5, 0.25)[0] is None
    assert judged([[1, 0.3]], 0.5, 1)[0] == 0.3
    assert relative_budget(UNIT, SHAPE, 10) == 1
    best = {size: candidates(SHAPE, 10, size * UNIT, TABLE)[0].form for size in (1, 4)}
    assert best == {1: LowRank(SHAPE, 4, 1, 4), 4: LowRank(SHAPE, 8, 1, 4)}
    assert candidates((1, 28, 28), 10, UNIT, TABLE) == []


def test_the_most_accurate_form_is_picked_and_the_others_say_why_not() -> None:
    large, small = planned(bytes=4 * UNIT), planned(bytes=UNIT)
    assert (large.parameterization.rank, small.parameterization.rank) == (8, 4)
    assert (large.accuracy, small.accuracy) == (0.6, pytest.approx(0.45))
    reasons = {a.form.kind + str(getattr(a.form, "rank", "")): a.why_not for a in large.alternatives}
    assert reasons == {
        "low_rank8": "",
        "low_rank4": "10.0 points less accurate",
        "pixels": "15.0 points less accurate",
    }
    assert planned(bytes=4 * UNIT, rank=4).parameterization == LowRank(SHAPE, 4, 1, 4)
    asked = planned(bytes=4 * UNIT, rank=3, bits=2)
    assert asked.parameterization == LowRank(SHAPE, 3, 1, 2) and asked.accuracy is None
    assert "nothing was measured" in asked.basis


def test_what_was_not_measured_falls_back_to_the_default() -> None:
    plan = planned(image_shape=(1, 16, 16))
    assert plan.parameterization == planner.parameterization_for((1, 16, 16), None, None, None)
    assert "the default" in plan.basis


def test_budgets_are_kept_and_used() -> None:
    plan = planned()
    names = tuple(f"class {k}" for k in range(10))
    assert plan.file_bytes <= plan.storage_bytes == load_target(BOARD).storage_bytes
    provenance = {"method": "frepo", "data": "0" * 16, "seed": 0, "iterations": 999_999_999}
    more = planner.file_bytes(plan.parameterization, (plan.ipc + 2) * 10, names, provenance)
    assert more > plan.storage_bytes
    assert plan.memory.total <= plan.process_ram_bytes
    assert json.loads(json.dumps(plan.as_dict()))["memory"]["total"] == plan.memory.total


def test_less_memory_takes_fewer_threads_or_images_and_then_is_refused(tmp_path: Path) -> None:
    plan = planned(student="convnet2-w64", bytes=UNIT)
    total, ways = plan.memory.total, []
    while True:
        try:
            plan = planned(student="convnet2-w64", bytes=UNIT, target=board(tmp_path, process_ram_bytes=total - 1))
        except BudgetError as refusal:
            assert "training takes at least" in str(refusal) and "activations" in str(refusal)
            assert f"at most the {(total - 1) / 1e6:.1f} MB" in str(refusal)
            break
        assert plan.memory.total < total
        total = plan.memory.total
        ways.append((plan.threads, plan.micro_batch))
    assert ways and ways[-1] == (1, 1)


def test_time_is_work_over_rate_where_nothing_is_calibrated() -> None:
    plan, target = planned(threads=1), load_target(BOARD)
    assert plan.seconds == pytest.approx(plan.flops / (1e9 * target.effective_gflops / target.cores))
    assert planned(threads=4).seconds == pytest.approx(plan.seconds / 4, rel=0.01)


REFUSED: list[tuple[dict[str, Any], type[EdgeddError], str]] = [
    ({"target": "raspberry-pi-zero"}, TargetError, "wanted one of: .*did you mean raspberry-pi-zero-2w"),
    ({"target": "esp32-s3"}, TargetError, "only infers"),
    ({"bytes": 900}, BudgetError, "the smallest that works is"),
    ({"bytes": 10**9}, BudgetError, "1000000000 bytes, wanted at most the 500000"),
    ({"bytes": 3000, "ipc": 500}, BudgetError, "ipc 500 takes"),
    ({"student": "convnet2-w999"}, BudgetError, "parameters [0-9.]+, .* choose a smaller student"),
    ({"micro_batch": 128, "student": "convnet2-w256"}, BudgetError, "lower the micro-batch of 128"),
    ({"parameterization": "pixels", "rank": 4}, SettingError, "pixels takes no rank"),
    ({"student": "perceptron"}, SettingError, "unknown student 'perceptron'"),
    ({"mode": "some"}, SettingError, "mode"),
    ({"ipc": 0}, SettingError, "ipc=0"),
    ({"threads": -1}, SettingError, "threads=-1"),
    ({"rnak": 3}, SettingError, "no option 'rnak'"),
    ({"data": "digits"}, SettingError, "both data and a shape"),
    ({"num_classes": None}, SettingError, "neither data nor"),
    ({"num_classes": 1}, SettingError, "1 classes, wanted 2"),
    ({"image_shape": (2, 16, 16)}, SettingError, "1 or 3 channels"),
]


@pytest.mark.parametrize(("wanted", "kind", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_refused_in_one_line(wanted: dict[str, Any], kind: type[EdgeddError], words: str) -> None:
    with pytest.raises(kind, match=words) as refusal:
        planned(**wanted)
    assert "\n" not in str(refusal.value)


def test_data_are_planned_with_the_names_of_their_classes() -> None:
    data = tiny_images(40, (1, 8, 8), 4)
    plan = edgedd.plan(data=data, target=BOARD, bytes=4000, student="convnet1-w8")
    assert (plan.image_shape, plan.num_classes) == ((1, 8, 8), 4)


def test_distilling_for_a_board_takes_the_plans_form_and_keeps_to_its_bytes() -> None:
    data = tiny_images(200, SHAPE, 10)
    quick: dict[str, Any] = {"method": "random", "labels": "hard", "recipe": edgedd.Recipe(steps=1), "target": BOARD}
    planned_set = edgedd.distill(data, bytes=4 * UNIT, **quick)
    plan = edgedd.plan(data=data, target=BOARD, bytes=4 * UNIT, recipe=quick["recipe"])
    assert planned_set.parameterization == plan.parameterization == LowRank(SHAPE, 8, 1, 4)
    assert plan.ipc - 1 <= planned_set.ipc <= plan.ipc + 1 and planned_set.nbytes <= 4 * UNIT
    own_form = edgedd.distill(data, ipc=2, rank=3, bits=2, **quick)
    assert (own_form.parameterization, own_form.ipc) == (LowRank(SHAPE, 3, 1, 2), 2)
    with pytest.raises(BudgetError, match="wanted at most the 500000"):
        edgedd.distill(data, bytes=600_000, **quick)
    with pytest.raises(BudgetError, match="ipc 9999 takes"):
        edgedd.distill(data, ipc=9999, **quick)
    with pytest.raises(TargetError, match="only infers"):
        edgedd.distill(data, **{**quick, "target": "esp32-s3"})
