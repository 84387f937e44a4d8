"""Bundles train on arm64 as they do here, in a Debian root that qemu runs; QEMU_CPU is a Raspberry Pi Zero 2 W's.

EDGEDD_ARM64_ROOT names the root: a Debian with python3, and with onnxruntime, numpy and safetensors where its python3
finds them or in /opt/site. chroot needs the rights of root.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_old_onnxruntime import EVERY_FAMILY, REPOSITORY, STEPS, TRAIN, bundle, difference, told, told_by

from edgedd.augmentation import Augmentation
from edgedd.parameterization import LowRank
from edgedd.recipe import Recipe

VARIABLE = "EDGEDD_ARM64_ROOT"
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
