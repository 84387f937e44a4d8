"""README keeps its promises: its Python runs as it stands, its commands and links exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import edgedd
from edgedd.cli import app
from edgedd.distillation.methods import METHODS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
INDENTED = [line.strip() for line in README.splitlines() if line.startswith("    ")]
IN_TEXT = re.findall(r"`((?:edgedd|make) [^`]+)`", README)
COMMANDS = [line for line in (*INDENTED, *IN_TEXT) if line.startswith("edgedd ")]


def test_the_python_is_short_and_runs(tmp_path: Path) -> None:
    (code,) = PYTHON
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    size, accuracy = re.fullmatch(r"(\d+) bytes, accuracy ([\d.]+)\n", done.stdout).groups()
    (synthetic,) = tmp_path.glob("digits.*")
    assert synthetic.stat().st_size == int(size) <= int(re.search(r"bytes=(\d+)", code)[1])
    assert float(accuracy) > 0.5
    assert edgedd.SyntheticSet.load(synthetic).ipc > 1
    assert {"bundle", "weights.safetensors"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_parses(line: str) -> None:
    """Command, options and their values are taken; nothing is run."""
    _, name, *arguments = shlex.split(line, comments=True)
    commands = get_command(app).commands
    assert name in commands
    if arguments:
        commands[name].make_context(name, arguments)


def test_the_three_commands_are_shown() -> None:
    shown = {line.split()[1] for line in INDENTED if line.startswith("edgedd ")}
    assert {"distill", "export", "train"} <= shown


@pytest.mark.parametrize("line", [line for line in (*INDENTED, *IN_TEXT) if line.startswith("make ")])
def test_every_make_target_exists(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


@pytest.mark.parametrize("name", ["accuracy_per_byte", "demo"])
def test_tables_have_their_place(name: str) -> None:
    begin, end = f"<!-- table:{name} -->\n", f"<!-- /table:{name} -->\n"
    assert README.count(begin) == README.count(end) == 1
    assert README.index(begin) < README.index(end)


def test_the_methods_are_those_that_exist() -> None:
    assert set(re.findall(r"`(\w+)`: ", README.split("## Methods")[1])) == set(METHODS)
