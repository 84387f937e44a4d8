"""Bundles of today on onnxruntime 1.17.1, the oldest that edgedd asks for: the same losses as on the installed one.

EDGEDD_ONNXRUNTIME_1_17 names an interpreter that has onnxruntime 1.17.1, numpy<2 and safetensors; when it is not set,
pip makes one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_sets import random_set

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.exporting import export
from edgedd.parameterization import Formation, LowRank, Parameterization, SharedBasis
from edgedd.recipe import OPTIMIZERS, Recipe

PACKAGES = ("onnxruntime==1.17.1", "numpy<2", "safetensors>=0.4.3")
VARIABLE = "EDGEDD_ONNXRUNTIME_1_17"
REPOSITORY = Path(__file__).parent.parent
CLASSES, STEPS = 3, 20
LOW_RANK = LowRank((3, 16, 16), 4, 3, 8)
EVERY_FAMILY = Augmentation(flip=0.5, shift=2, scale=0.2, rotate=15, cutout=0.4, colour=1)
MODES = ("full", "head", "bias", "last-2")
# Batch normalisation of a few small images amplifies rounding, the more the more layers have it; where only a part of
# the network is trained, it takes its running statistics.
RATES = {"convnet2-w8": 0.05, "mlp": 0.05, "resnet8": 3e-3, "mobilenet-tiny": 2e-4}
PARTIAL_RATE = 0.05

TRAIN = """
import json, platform, sys, time
import onnxruntime
from edgedd.device import Student
began, losses = time.perf_counter(), []
for folder in sys.argv[1:]:
    losses.append(Student.load(folder, threads=1).fit().losses.tolist())
seconds = time.perf_counter() - began
facts = {"onnxruntime": onnxruntime.__version__, "machine": platform.machine(), "seconds": seconds}
print(json.dumps({**facts, "losses": losses}))
"""

PREDICT = """
import json, sys
import numpy as np
from edgedd.device import Student
student, images = Student.load(sys.argv[1], threads=1), np.load(sys.argv[2])
print(json.dumps([student.predict(images, int8=int8).tolist() for int8 in (False, True)]))
"""


def told(command: list[str], environment: Mapping[str, str], seconds: int = 600) -> Any:
    """The JSON that a command prints, on one thread and with nothing of this interpreter's settings."""
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told_by(interpreter: str, code: str, *arguments: Path) -> Any:
    return told([interpreter, "-c", code, *map(str, arguments)], {"PYTHONPATH": str(REPOSITORY)})


def bundle(
    folder: Path, student: str, recipe: Recipe, *, mode: str = "full", form: Parameterization = LOW_RANK
) -> Path:
    """A bundle of a random set of 24 images."""
    synthetic = random_set(form, CLASSES, 8, seed=1)
    export(replace(synthetic, recipe=recipe), folder, student=student, mode=mode)
    return folder


def difference(losses: list[list[float]], wanted: list[list[float]]) -> float:
    """Largest relative difference of a loss (bundles, steps), once both are seen to be training."""
    assert np.shape(losses) == np.shape(wanted) and np.isfinite(wanted).all() and np.ptp(wanted, axis=1).all()
    return float(np.max(np.abs(np.array(losses) / np.array(wanted) - 1)))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with onnxruntime 1.17.1."""
    given = os.environ.get(VARIABLE)
    interpreter = given or made(tmp_path_factory.mktemp("old") / "venv")
    versions = told_by(
        interpreter, "import json, numpy, onnxruntime as o; print(json.dumps([o.__version__, numpy.__version__]))"
    )
    assert versions[0] == "1.17.1" and versions[1] < "2", f"{interpreter} has {versions}"
    return interpreter


def made(folder: Path) -> str:
    """A new virtual environment's interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    interpreter = str(folder / "bin" / "python")
    install = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip cannot install {' '.join(PACKAGES)} ({reason}); {VARIABLE} may name an interpreter with them")
    return interpreter


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("student", RATES)
def test_training_gives_the_same_losses(student: str, mode: str, old: str, tmp_path: Path) -> None:
    bundles = []
    for optimizer in OPTIMIZERS:
        rate = (RATES[student] if mode == "full" else PARTIAL_RATE) / (10 if optimizer == "adamw" else 1)
        recipe = Recipe(rate, steps=STEPS, batch_size=16, augmentation=EVERY_FAMILY, optimizer=optimizer)
        bundles.append(bundle(tmp_path / optimizer, student, recipe, mode=mode))
    then, now = (told_by(interpreter, TRAIN, *bundles) for interpreter in (old, sys.executable))
    assert then["onnxruntime"] == "1.17.1" and np.shape(now["losses"]) == (len(OPTIMIZERS), STEPS)
    largest = difference(then["losses"], now["losses"])
    print(f"largest relative difference of losses: {largest:.1e}")
    assert largest < 1e-4


@pytest.mark.slow
def test_every_kind_is_decoded_alike(old: str, tmp_path: Path) -> None:
    forms = (Formation((3, 16, 16)), SharedBasis((3, 16, 16), 5, 3), SharedBasis((3, 16, 16), 3, half=True))
    recipe = Recipe(PARTIAL_RATE, steps=STEPS, batch_size=16)
    bundles = [bundle(tmp_path / str(form), "convnet2-w8", recipe, form=form) for form in forms]
    then, now = (told_by(interpreter, TRAIN, *bundles) for interpreter in (old, sys.executable))
    assert difference(then["losses"], now["losses"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("student", RATES)
def test_both_predictions_are_the_same(student: str, old: str, tmp_path: Path) -> None:
    recipe = Recipe(0.02, steps=150, batch_size=64)
    synthetic = edgedd.distill("digits", method="random", ipc=10, labels="hard", recipe=recipe)
    export(synthetic, tmp_path / "bundle", student=student, quantize=True)
    np.save(tmp_path / "images.npy", edgedd.load_data("digits").test_images)
    paths = tmp_path / "bundle", tmp_path / "images.npy"
    then, now = (np.array(told_by(interpreter, PREDICT, *paths)) for interpreter in (old, sys.executable))
    np.testing.assert_allclose(then[0], now[0], rtol=1e-3, atol=1e-3)
    classes = then[1].argmax(1), now[1].argmax(1)
    same = float(np.mean(classes[0] == classes[1]))
    print(f"{same:.1%} of classes are the same in int8")
    assert same >= 0.95 and len(set(classes[1])) > 3
