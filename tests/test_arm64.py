"""Bundles train on arm64 as they do here, in a Debian root that qemu runs; QEMU_CPU is a Raspberry Pi Zero 2 W's.

EDGEDD_ARM64_ROOT names the root: a Debian with python3, and with onnxruntime, numpy and safetensors where its python3
finds them or in /opt/site. chroot needs the rights of root, and the whole route pip and its index.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_old_onnxruntime import EVERY_FAMILY, REPOSITORY, STEPS, TRAIN, bundle, difference, told, told_by

import edgedd
from edgedd.augmentation import Augmentation
from edgedd.bundles.files import ARCHIVE
from edgedd.parameterization import LowRank
from edgedd.recipe import Recipe

VARIABLE = "EDGEDD_ARM64_ROOT"
FOR_ARM64 = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_aarch64"]
KINDS = ("images", "labels")
SERVER = ("distillation", "exporting", "report", "__pycache__")
# Name: student, image shape, learning rate, augmentation.
BUNDLES = {
    "convnet3-w16": ("convnet3-w16", (3, 32, 32), 0.05, Augmentation()),
    "convnet3-w16, augmented": ("convnet3-w16", (3, 32, 32), 0.05, EVERY_FAMILY),
    "resnet8": ("resnet8", (3, 16, 16), 3e-3, Augmentation()),
    "resnet8, augmented": ("resnet8", (3, 16, 16), 3e-3, EVERY_FAMILY),
}


@pytest.fixture
def inside() -> Iterator[Path]:
    """A folder inside the arm64 root with the package's device files, gone afterwards."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set, wanted the folder of a Debian arm64 root")
    assert (Path(root) / "usr/bin/python3").exists(), f"{VARIABLE}={root} has no usr/bin/python3"
    with tempfile.TemporaryDirectory(prefix="edgedd-", dir=Path(root) / "opt") as folder:
        shutil.copytree(REPOSITORY / "edgedd", Path(folder) / "edgedd", ignore=shutil.ignore_patterns(*SERVER))
        yield Path(folder)


def told_by_arm64(folder: Path, code: str, *arguments: Path) -> Any:
    """What `code` prints in the root; `folder` and `arguments` are paths of this machine inside that root."""
    root = Path(os.environ[VARIABLE])
    seen = [f"/{path.relative_to(root)}" for path in (folder, *arguments)]
    python = ["env", f"PYTHONPATH={seen[0]}:/opt/site", "python3", "-c", code, *seen[1:]]
    return told(["chroot", str(root), *python], {"QEMU_CPU": "cortex-a53"}, seconds=3600)


@pytest.mark.arm64
@pytest.mark.parametrize("name", BUNDLES)
def test_training_gives_the_same_losses(name: str, inside: Path) -> None:
    student, shape, rate, augmentation = BUNDLES[name]
    recipe = Recipe(rate, steps=STEPS, batch_size=16, augmentation=augmentation)
    folder = bundle(inside / "bundle", student, recipe, form=LowRank(shape, 4, 3, 8))
    there, here = told_by_arm64(inside, TRAIN, folder), told_by(sys.executable, TRAIN, folder)
    assert there["machine"] == "aarch64" and len(there["losses"][0]) == STEPS
    largest = difference(there["losses"], here["losses"])
    for facts in (there, here):
        print(f"{facts['machine']}, onnxruntime {facts['onnxruntime']}: {facts['seconds']:.1f} seconds")
    print(f"largest relative difference of losses: {largest:.1e}")
    assert largest < 1e-4


ROUTE = """
import contextlib, io, json, platform, sys
from edgedd.cli import main
said = {"machine": platform.machine()}
for words in json.loads(sys.argv[1]):
    sys.argv = ["edgedd", *words, "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            assert not end.code, words
    said[words[0]] = json.loads(out.getvalue())
print(json.dumps(said))
"""


@pytest.fixture
def from_wheels() -> Iterator[Path]:
    """A folder inside the root, with edgedd and the packages of its command that /opt/site lacks, from wheels alone."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set, wanted the folder of a Debian arm64 root")
    with tempfile.TemporaryDirectory(prefix="edgedd-", dir=Path(root) / "opt") as folder:
        wheels = Path(folder) / "wheels"
        for words in (
            ["wheel", "--no-deps", "-w", wheels, REPOSITORY],
            ["download", *FOR_ARM64, "-d", wheels, "typer"],
        ):
            done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(Path(folder) / "site")
        assert (Path(folder) / "site" / "edgedd" / "cli.py").exists()
        yield Path(folder)


@pytest.mark.arm64
def test_the_whole_route(from_wheels: Path) -> None:
    """A bundle made here is verified, installed, trained and evaluated there by the command, and as good as here."""
    digits = edgedd.load_data("digits")
    synthetic = edgedd.distill(digits, method="random", ipc=10, labels="hard", recipe=Recipe(0.02, steps=60))
    edgedd.export(synthetic, from_wheels / f"bundle{ARCHIVE}", student="convnet2-w8")
    parts = {f"{part}_{what}": getattr(digits, f"{part}_{what}") for part in ("train", "test") for what in KINDS}
    np.savez(from_wheels / "data.npz", **{k: v[:, 0] if v.ndim == 4 else v for k, v in parts.items()})

    def words(base: Path) -> list[list[str]]:
        bundle, app, data, weights = (str(base / n) for n in (f"bundle{ARCHIVE}", "app", "data.npz", "weights"))
        train = ["train", f"{app}/current", "--threads", "1", "--seed", "1", "-o", weights]
        evaluate = ["evaluate", f"{app}/current", "--data", data, "--weights", weights]
        return [["verify", bundle], ["install", bundle, app], train, evaluate]

    seen = Path("/opt") / from_wheels.name
    python = ["env", f"PYTHONPATH={seen}/site:/opt/site", "python3", "-c", ROUTE]
    root = ["chroot", os.environ[VARIABLE], *python, json.dumps(words(seen))]
    there = told(root, {"QEMU_CPU": "cortex-a53"}, seconds=3600)
    for name in ("app", "weights"):
        (from_wheels / name).rename(from_wheels / f"{name} there")
    here = told_by(sys.executable, ROUTE, json.dumps(words(from_wheels)))
    assert there["machine"] == "aarch64" and there["install"]["version"] == here["install"]["version"]
    accuracies = [each["evaluate"][0]["accuracy"] for each in (there, here)]
    print(f"accuracy there and here: {accuracies}; losses {there['train']['loss']} and {here['train']['loss']}")
    assert abs(accuracies[0] - accuracies[1]) <= 0.01 and min(accuracies) > 0.6
