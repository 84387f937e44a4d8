"""Every example runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

import edgedd

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_own_method() -> None:
    words = run("own_method.py").split()
    assert float(words[3].rstrip(",")) < float(words[1])


def test_train_on_device(tmp_path: Path) -> None:
    recipe = edgedd.Recipe(steps=30)
    synthetic = edgedd.distill("digits", method="random", ipc=3, labels="hard", recipe=recipe)
    edgedd.export(synthetic, tmp_path / "bundle", student="convnet2-w8")
    output = run("train_on_device.py", str(tmp_path / "bundle"), str(tmp_path / "weights.safetensors"))
    assert output.startswith("30 steps")
    assert (tmp_path / "weights.safetensors").stat().st_size > 1000


@pytest.mark.slow
def test_bring_your_own_model(tmp_path: Path) -> None:
    lines = run("bring_your_own_model.py", str(tmp_path / "own")).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["full", "last-2"]
    for line in lines:
        before, after = (float(words.split()[-1]) for words in line.split(" %")[:2])
        assert after > before + 20


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text
