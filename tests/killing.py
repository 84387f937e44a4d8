"""Commands that are killed: `python killing.py FOLDER KILLS SEED COMMAND...`, and what the next one makes of the rest.

One process imports everything once and forks a child a command, so that a kill costs milliseconds. A child dies after
a random time, or before the k-th thing that it does with files; before an fsync, half of the file may be on the disk.
"""

import importlib
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir")
RECIPE_STEPS, OLD = 40, b"what was there before"


class Case(NamedTuple):
    """A command that writes to a folder, begun anew or gone on with alike; `before` is what stands there at first."""

    run: Callable[[Path], object]
    before: Callable[[Path], object]
    finished: tuple[str, ...]  # patterns of the files that are whole whenever they are there
    check: Callable[[Path], object] = lambda folder: None


def cases(scratch: Path) -> dict[str, Case]:
    """The commands, with data and bundles that children share."""
    import numpy as np
    import torch
    from tiny_data import tiny_images
    from tiny_sets import random_set

    import edgedd.device.student  # noqa: F401 (children share it)
    from edgedd.bundles.bundle import Bundle
    from edgedd.bundles.files import ARCHIVE
    from edgedd.distillation import checkpoint
    from edgedd.distillation.experts import experts
    from edgedd.distillation.run import distill
    from edgedd.evaluation import train_bundle
    from edgedd.exporting import export
    from edgedd.parameterization import LowRank
    from edgedd.recipe import Recipe

    torch.set_num_threads(1)
    checkpoint.Checkpoint.due = lambda self: True
    data = tiny_images(60, (1, 8, 8), 3)
    assert data.fingerprint and np.isfinite(data.mean).all()
    synthetic = random_set(LowRank((1, 8, 8), 4, 1, 8), 3, 4, seed=0)
    scratch.mkdir(parents=True)
    export(synthetic, scratch / "bundle", student="convnet1-w4")
    options = {"method": "dm", "ipc": 4, "rank": 3, "labels": "hard", "iterations": RECIPE_STEPS, "width": 4}
    options |= {"recipe": Recipe(steps=5), "settings": {"batch_real": "8"}, "resume": True}

    def old_bundle(folder: Path) -> None:
        export(synthetic, folder / "bundle", student="convnet1-w4", mode="head")
        export(synthetic, folder / f"zipped{ARCHIVE}", student="convnet1-w4", mode="head")

    def both(folder: Path) -> None:
        for name in ("bundle", f"zipped{ARCHIVE}"):
            export(synthetic, folder / name, student="convnet1-w4")

    def old(name: str) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(OLD)

    return {
        "distil": Case(lambda f: distill(data, output=f / "set", **options), old("set"), ("set",)),
        "experts": Case(
            lambda f: experts(data, f / "experts", count=2, epochs=6, width=4),
            lambda f: None,
            ("experts/experts.json", "experts/*.safetensors"),
        ),
        "train": Case(lambda f: train_bundle(scratch / "bundle", f / "w", threads=1), old("w"), ("w",)),
        "export": Case(both, old_bundle, ("bundle/*", f"zipped{ARCHIVE}"), lambda f: Bundle.load(f / "bundle")),
    }


def tree(folder: Path) -> dict[str, bytes]:
    """All files below, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_child(case: Case, folder: Path, kill_at: int | None = None, after: float | None = None) -> bool:
    """Run in a child -> whether it got to the end; what it says goes to a log beside the folder."""
    child = os.fork()
    if child == 0:
        try:
            log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            done = _counted(str(folder), kill_at)
            case.run(folder)
            Path(f"{folder}.done").write_text(json.dumps({"events": done[0], "modules": list(sys.modules)}))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a command failed: {Path(f'{folder}.log').read_text()}")
    return os.WIFEXITED(status)


def _counted(folder: str, kill_at: int | None) -> list[int]:
    """Count what is done with files of the folder; die before the `kill_at`-th."""
    done, fsync = [0], os.fsync

    def one() -> bool:
        done[0] += 1
        return done[0] == kill_at

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and folder in str(arguments) and one():
            os.kill(os.getpid(), signal.SIGKILL)

    def cut_fsync(handle: int) -> None:
        if one():
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode):
                os.ftruncate(handle, found.st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    sys.addaudithook(on_event)
    os.fsync = cut_fsync
    return done


def killed(case: Case, folder: Path, kills: int, seed: int) -> dict[str, float]:
    """Kill the command so often, each time going on from what the last kill left, and compare with an unbroken run."""
    whole, again, cut, before = (folder / name for name in ("whole", "again", "cut", "before"))
    for path in (whole, again, before):
        path.mkdir(parents=True)
        case.before(path)
    in_child(case, whole)
    for name in json.loads(Path(f"{whole}.done").read_text())["modules"]:
        with suppress(Exception):  # what a command imports is imported here, for the next ones to have it
            importlib.import_module(name)
    begun = time.perf_counter()
    in_child(case, again)
    takes, events = time.perf_counter() - begun, json.loads(Path(f"{again}.done").read_text())["events"]
    unbroken, first = tree(whole), tree(before)
    assert tree(again) == unbroken and set(first) <= set(unbroken)
    generator = random.Random(seed)
    report = {"seconds": takes, "events": events, "killed": 0, "finished": 0}
    shutil.copytree(before, cut)
    while report["killed"] < kills:
        by_event = generator.random() < 0.5
        how = {"kill_at": generator.randint(1, events)} if by_event else {"after": generator.uniform(0, takes)}
        if in_child(case, cut, **how):
            report["finished"] += 1
            assert tree(cut) == unbroken, differences(cut, unbroken)
            shutil.rmtree(cut)
            shutil.copytree(before, cut)
            continue
        report["killed"] += 1
        for path in (path for pattern in case.finished for path in cut.glob(pattern)):
            name = str(path.relative_to(cut))
            assert path.read_bytes() in (first.get(name), unbroken.get(name)), f"half of {name} after {how}"
        assert set(first) <= set(tree(cut)), f"{set(first) - set(tree(cut))} gone after {how}"
        case.check(cut)
    in_child(case, cut)
    assert tree(cut) == unbroken, differences(cut, unbroken)
    return report


def differences(folder: Path, wanted: dict[str, bytes]) -> list[str]:
    found = tree(folder)
    return [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]


def main() -> None:
    folder, kills, seed, *names = sys.argv[1:]
    known = cases(Path(folder) / "scratch")
    for name in names:
        print(
            json.dumps({"command": name, **killed(known[name], Path(folder) / name, int(kills), int(seed))}), flush=True
        )


if __name__ == "__main__":
    main()
