"""SIGKILL while a bundle is installed: the old or the new one is current and whole, and the next command works."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgedd.bundles.files import ARCHIVE
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

SCRIPT = Path(__file__).with_name("installing.py")


@pytest.fixture(scope="module")
def two(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    paths = [folder / "full", folder / f"bias{ARCHIVE}"]
    for mode, path in zip(("full", "bias"), paths, strict=True):
        export(synthetic, path, student="convnet1-w4", mode=mode)
    return paths


def killed(two: list[Path], folder: Path, kills: int, seed: int = 0) -> dict[str, float]:
    words = [sys.executable, SCRIPT, *two, folder, str(kills), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    report: dict[str, float] = json.loads(done.stdout)
    return report


def test_killed_at_random_moments(two: list[Path], tmp_path: Path) -> None:
    report = killed(two, tmp_path / "app", 8)
    assert report["killed"] + report["finished"] == 8


@pytest.mark.slow
def test_killed_before_each_thing_it_does_with_files(two: list[Path], tmp_path: Path) -> None:
    assert killed(two, tmp_path / "app", 0)["killed"] >= 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_a_hundred_random_moments(two: list[Path], tmp_path: Path, seed: int) -> None:
    assert killed(two, tmp_path / "app", 100, seed)["killed"] >= 50
