"""On a full disk and on one that is read-only every command says one line, and what was there stays as it was.

The disk is a small tmpfs; who may not mount one has files that must not grow, and folders without write permission.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_data import tiny_images

import edgedd
from edgedd.bundles.files import ARCHIVE
from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.experts import experts
from edgedd.errors import SettingError
from edgedd.evaluation import train_bundle
from edgedd.exporting import export
from edgedd.planning.target import load_target
from edgedd.planning.target_file import write_target
from edgedd.report.preview import preview
from edgedd.synthetic_set import SyntheticSet

DISK_BYTES = 2**20
DATA = tiny_images(30, (1, 8, 8), 3)
DM = {
    "method": "dm",
    "ipc": 2,
    "rank": 2,
    "labels": "hard",
    "iterations": 3,
    "width": 4,
    "settings": {"batch_real": "4"},
}


class Given(NamedTuple):
    """A set and bundles of it that lie elsewhere."""

    synthetic: SyntheticSet
    bundle: Path
    other: Path


Write = Callable[[Path, Given], object]
WRITES: dict[str, Write] = {
    "set": lambda disk, given: given.synthetic.save(disk / "set"),
    "distill": lambda disk, given: edgedd.distill(DATA, output=disk / "made", **DM, recipe=edgedd.Recipe(steps=2)),
    "checkpoint": lambda disk, given: Checkpoint(disk / "set", {"seed": 0}).save({"weights": "w" * 9000}),
    "experts": lambda disk, given: experts(DATA, disk / "experts", count=2, epochs=1, width=8),
    "bundle": lambda disk, given: export(given.synthetic, disk / "bundle", student="convnet1-w4", mode="bias"),
    "archive": lambda disk, given: export(given.synthetic, disk / f"one{ARCHIVE}", student="convnet1-w4", mode="bias"),
    "install": lambda disk, given: edgedd.install(given.other, disk / "app"),
    "train": lambda disk, given: train_bundle(given.bundle, disk / "weights", threads=1),
    "profile": lambda disk, given: write_target(disk / "board.toml", load_target("raspberry-pi-zero-2w")),
    "picture": lambda disk, given: preview(given.synthetic, disk / "preview.png"),
}


@pytest.fixture(scope="module")
def given(synthetic: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    for mode in ("full", "bias"):
        export(synthetic, folder / mode, student="convnet1-w4", mode=mode)
    return Given(synthetic, folder / "full", folder / "bias")


@pytest.fixture(scope="module")
def disk(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk with the older file of each command on it."""
    path = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    for name in ("set", "weights", "board.toml", "preview.png", "set.checkpoint"):
        (path / name).write_bytes(b"what was there before")
    for name in ("bundle", f"one{ARCHIVE}"):
        export(given.synthetic, path / name, student="convnet1-w4", mode="full")
    edgedd.install(given.bundle, path / "app")
    experts(DATA, path / "experts", count=1, epochs=1, width=8)
    yield path
    if mounted:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[str]:
    """No room -> what the system says then."""
    if not os.path.ismount(disk):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            yield "File too large"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (2**16, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    try:
        yield "No space left on device"
    finally:
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[str]:
    """Nothing may be written -> what the system says then."""
    if not os.path.ismount(disk):
        if os.geteuid() == 0:
            pytest.skip("root writes to folders without write permission, and may not mount here")
        for folder in (disk, disk / "app", disk / "experts"):
            folder.chmod(0o555)
        try:
            yield "Permission denied"
        finally:
            for folder in (disk, disk / "app", disk / "experts"):
                folder.chmod(0o755)
        return
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield "Read-only file system"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def files(disk: Path) -> dict[str, bytes]:
    """Everything on the disk, links by what they name."""
    found = {
        p: os.readlink(p).encode() if p.is_symlink() else p.read_bytes() for p in disk.rglob("*") if not p.is_dir()
    }
    return {str(path.relative_to(disk)): content for path, content in found.items() if path.name != "filler"}


@pytest.mark.parametrize("trouble", [full, read_only])
@pytest.mark.parametrize("name", WRITES)
def test_one_line_and_nothing_lost(name: str, trouble: Callable, disk: Path, given: Given) -> None:
    before = files(disk)
    with trouble(disk) as words:
        with pytest.raises(SettingError, match=words) as caught:
            WRITES[name](disk, given)
        assert files(disk) == before
    assert str(disk) in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_with_room_again_it_works(name: str, disk: Path, given: Given) -> None:
    """What was refused was refused for the disk alone."""
    before = files(disk)
    WRITES[name](disk, given)
    assert files(disk) != before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_no_room_for_what_is_printed() -> None:
    main = "import sys; sys.argv = ['edgedd', 'targets', '--json']; from edgedd.cli import main; main()"
    with open("/dev/full", "wb") as nowhere:
        done = subprocess.run([sys.executable, "-c", main], stdout=nowhere, stderr=subprocess.PIPE, check=False)
    assert done.stderr.decode() == "edgedd: cannot write: No space left on device; make room and run it again\n"
    assert done.returncode == 2
