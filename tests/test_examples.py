"""Every example runs as a user would run it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgedd

EXAMPLES = Path(__file__).parent.parent / "examples"
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


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


def test_the_set_that_is_here_trains_a_student_and_is_the_one_that_was_measured(tmp_path: Path) -> None:
    synthetic = edgedd.SyntheticSet.load(EXAMPLES / "fashion_mnist.edd")
    edgedd.export(synthetic, tmp_path / "bundle", student="convnet2-w8")
    student = edgedd.Student.load(tmp_path / "bundle", threads=1)
    student.fit(seed=0, steps=60)
    std, mean = (synthetic.tensors[name][:, None, None] for name in ("std", "mean"))
    images = np.clip(255 * (synthetic.images(slice(None)) * std + mean), 0, 255).astype(np.uint8)
    assert student.evaluate(images, synthetic.soft_labels(slice(None)).argmax(1)) > 0.6
    measured = json.loads((RESULTS / "accuracy_per_byte_fashion-mnist.json").read_text())["rows"]
    own = {row["student"]: row for row in measured if row.get("file") == "fashion_mnist.edd"}
    usual, readme = own["convnet3-w32"], (EXAMPLES.parent / "README.md").read_text()
    assert (usual["bytes"], usual["ipc"]) == (synthetic.nbytes, synthetic.ipc)
    assert f"a set of {synthetic.nbytes:,} bytes" in readme
    accuracy = f"{100 * usual['accuracy']:.1f} ± {100 * usual['spread']:.1f} % of the test images"
    assert f"`convnet3-w32` trained on it knows {accuracy} ({len(usual['seeds'])} trainings)" in readme


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
