"""SIGKILL while edgedd distils, trains experts, trains or exports: the next command works and the end is the same.

Installations have test_installation_killed.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killing.py")
COMMANDS = ("distil", "experts", "train", "export")


def killed(folder: Path, kills: int, seed: int, *commands: str) -> list[dict[str, float]]:
    """What was killed and finished of each command; killing.py compares what they leave with unbroken runs."""
    words = [sys.executable, SCRIPT, folder, str(kills), str(seed), *commands]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_once(tmp_path: Path) -> None:
    assert [report["killed"] for report in killed(tmp_path, 1, 0, "distil")] == [1]


@pytest.mark.slow
def test_killed_at_ten_moments(tmp_path: Path) -> None:
    assert [report["killed"] for report in killed(tmp_path, 10, 0, *COMMANDS)] == [10] * len(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_two_hundred_moments(command: str, tmp_path: Path) -> None:
    (report,) = killed(tmp_path, 200, 1, command)
    assert report["killed"] == 200 and report["events"] >= 8
