"""`edgedd plan`: the table, the bars, JSON, the picture, a bundle of one's own, and refusals in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Command, Made

from edgedd.bundles.bundle import Bundle
from edgedd.commands.plan_output import duration, form_text
from edgedd.device import Student
from edgedd.errors import BudgetError
from edgedd.exporting import export
from edgedd.planning.target import load_target
from edgedd.planning.target_file import write_target
from edgedd.synthetic_set import SyntheticSet

BOARD = ("--target", "raspberry-pi-zero-2w")
TINY = ("plan", "--shape", "1x8x8", "--classes", "3", "--student", "convnet1-w8", *BOARD)
pytestmark = pytest.mark.usefixtures("own")


def test_a_plan_is_printed_with_its_budget_and_alternatives(command: Command, tmp_path: Path) -> None:
    ran = command(*TINY, "--bytes", 4000, "--explain", "-o", tmp_path / "budget.png")
    assert (ran.status, ran.err) == (0, "")
    for words in ("plan for raspberry-pi-zero-2w", "activations", "left", "storage, 4.0 kB", "alternatives", "picked"):
        assert words in ran.out
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_as_json_says_all_of_it(command: Command) -> None:
    said = json.loads(command(*TINY, "--json").out)
    assert sum(v for k, v in said["memory"].items() if k != "total") == said["memory"]["total"]
    assert said["memory"]["total"] <= said["process_ram_bytes"]
    assert said["file_bytes"] <= said["storage_bytes"] == 500_000
    assert said["alternatives"][0].keys() >= {"form", "ipc", "file_bytes", "why_not"}


def test_a_bundle_is_planned_by_its_own_graph_and_takes_the_plan_along(
    command: Command, made: Made, tmp_path: Path
) -> None:
    bundle = export(SyntheticSet.load(made.synthetic), tmp_path / "b", student="convnet2-w8", target=BOARD[1])
    said = json.loads(command("plan", "--bundle", tmp_path / "b", *BOARD, "--json").out)
    assert (bundle.threads, bundle.micro_batch) == (said["threads"], said["micro_batch"])
    assert said["file_bytes"] == made.synthetic.stat().st_size
    loaded = Bundle.load(tmp_path / "b")
    assert (loaded.threads, loaded.micro_batch) == (bundle.threads, bundle.micro_batch)
    on_one = Student.load(tmp_path / "b", threads=1)
    assert on_one.micro_batch(32) <= bundle.micro_batch
    assert Student.load(tmp_path / "b", micro_batch=7).micro_batch(32) == 7
    assert Student.load(made.bundle).bundle.micro_batch is None


def test_a_bundle_for_too_small_a_board_is_not_exported(made: Made, tmp_path: Path) -> None:
    small = replace(load_target(BOARD[1]), process_ram_bytes=70_000_000)
    write_target(tmp_path / "small.toml", small)
    synthetic = SyntheticSet.load(made.synthetic)
    with pytest.raises(BudgetError, match=r"takes at least .*runtime 68\.0.*at most the 70\.0 MB of small"):
        export(synthetic, tmp_path / "b", student="convnet2-w8", target=str(tmp_path / "small.toml"))
    assert not (tmp_path / "b").exists()


REFUSED = [
    (("plan", "--shape", "8x8", "--classes", "3", *BOARD), "wanted CHANNELSxHEIGHTxWIDTH"),
    (("plan", *BOARD), "neither data nor a shape"),
    (("plan", "--shape", "1x8x8", "--classes", "3", "--target", "rpi-5"), "did you mean raspberry-pi-5-4gb"),
    ((*TINY, "--data", "digits"), "both data and a shape"),
    ((*TINY, "--bytes", "900"), "the smallest that works is"),
    ((*TINY, "-o", "/no/such/folder/b.png"), "/no/such/folder"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: str(value)[-30:])
def test_mistakes_are_one_line(command: Command, arguments: tuple[str, ...], words: str) -> None:
    ran = command(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err and ran.err.count("\n") == 1


def test_a_bundle_has_its_own_student(command: Command, made: Made) -> None:
    ran = command("plan", "--bundle", made.bundle, "--student", "mlp", *BOARD)
    assert (ran.status, ran.err.count("\n")) == (2, 1) and "no student 'mlp', wanted one of its own" in ran.err
    ran = command("plan", "--bundle", made.bundle, "--mode", "head", *BOARD)
    assert (ran.status, ran.err.count("\n")) == (2, 1) and "a bundle has its own mode" in ran.err


def test_words_for_people() -> None:
    assert [duration(s) for s in (3, 600, 9000, 400_000)] == ["3 s", "10 min", "2 h", "5 days"]
    form = {"kind": "low_rank", "shape": [3, 8, 8], "rank": 4, "subspaces": 1, "bits": 4}
    assert form_text(form) == "low_rank, rank 4, 4 bits"
