"""`edgedd try`: every student of a bundle trained on this machine within a time, and ranked."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from json import loads
from typing import Any

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import SET
from edgedd.device.trial import HELD_OUT, Trial, left_out
from edgedd.errors import SettingError
from edgedd.synthetic_set import SyntheticSet

PROBE_SHARE, LEAST_PROBE_SECONDS, MOST_PROBE_SECONDS = 0.04, 0.3, 5.0
TEST_SHARE, LEAST_TEST_IMAGES = 0.15, 200
SAFETY = 0.9  # of the time that is left is given to steps: a machine gets warm, and others work on it
LEAST_STEPS = 10
OnStep = Callable[[str, int, int, float | None], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Shares:
    """How the time is shared out.

    Attributes:
        steps: of each student.
        test_images: that each is tested on.
        seconds: expected of training, by student; `beside`, of starting and testing.
    """

    steps: int
    test_images: int
    seconds: dict[str, float]
    beside: dict[str, float]

    def until(self, name: str, left: float) -> float:
        """Seconds of training after which a student is stopped, when so many are left for it and those after it."""
        names = list(self.seconds)
        later = names[names.index(name) + 1 :]
        return left - sum(self.seconds[other] + self.beside[other] for other in later) - self.beside[name]


def try_students(
    bundle: str | os.PathLike[str],
    minutes: float,
    data: str | None = None,
    *,
    seed: int = 0,
    threads: int | None = None,
    on_step: OnStep | None = None,
) -> Row:
    """Train each student of a bundle from its synthetic set, each in a process of its own, and rank them.

    All take the same number of steps, the recipe's or as many as the time allows, along the recipe's schedule shortened
    to that. They are tested on `data`'s test images, on a part of them where the time asks for it; without data on a
    fifth of the set's own rows, which training then leaves out. That says how well the set's images are learned, and
    only by way of them something about real ones.

    Returns {"bundle", "minutes", "steps", "recipe_steps", "tested_on", "test_images", "seconds", "rows"}; each row has
    student, accuracy (fraction), seconds (of training), seconds_per_step, steps, peak_bytes (of its process up to the
    end of training; None without /proc), parameters, loss; a student that could not be trained has "error" instead.
    Rows are sorted by accuracy, then seconds, then memory, failures last.

    Raises:
        SettingError: the time is too short, or the data is of another kind.
        BundleError: a bundle that is incomplete or altered.
    """
    begun = time.monotonic()
    if not 0.05 <= minutes <= 10_000:
        raise SettingError(f"minutes={minutes:g}, wanted 0.05 to 10,000")
    opened, told = Bundle.load(bundle), on_step or (lambda *_: None)
    names, synthetic = opened.students, SyntheticSet.load(opened.file(SET))
    recipe_steps = synthetic.recipe.steps
    if data is None and not left_out(synthetic, seed).any():
        raise SettingError(f"{bundle} has one image a class, none can be left out to test on: give --data")
    first = min(max(60 * minutes * PROBE_SHARE / len(names), LEAST_PROBE_SECONDS), MOST_PROBE_SECONDS)
    probe = Trial(os.fspath(bundle), names[0], data, recipe_steps, first, 0, seed, threads)
    probes: list[Row] = []
    for number, name in enumerate(names, start=1):
        known = next((row for row in probes if "error" not in row), None)
        probes.append(_probed(replace(probe, student=name), known))
        told("time", number, len(names), None)
    end = begun + 60 * minutes
    shares = _shares(probes, recipe_steps, end - time.monotonic(), minutes)
    rows = [row for row in probes if "error" in row] + _trained(probe, shares, end, told)
    share = f"{100 * HELD_OUT:.0f} % of the set's own rows, left out of training"
    return {
        "bundle": os.fspath(bundle),
        "minutes": minutes,
        "steps": shares.steps,
        "recipe_steps": recipe_steps,
        "tested_on": f"test images of {data}" if data else share,
        "test_images": max((row.get("test_images", 0) for row in rows), default=0),
        "seconds": time.monotonic() - begun,
        "rows": sorted(rows, key=_rank),
    }


def _trained(probe: Trial, shares: Shares, end: float, told: OnStep) -> list[Row]:
    """One row a student that can be trained, all of them done by `end` on the monotonic clock."""
    rows: list[Row] = []
    total = len(shares.seconds) * shares.steps
    trial = replace(probe, steps=shares.steps, test_images=shares.test_images)
    for name in shares.seconds:
        before, seconds = len(rows) * shares.steps, max(0.0, shares.until(name, end - time.monotonic()))
        rows.append(_run(replace(trial, student=name, seconds=seconds), partial(_tell, told, before, total)))
        _tell(told, before, total, shares.steps)
    return rows


def _tell(told: OnStep, before: int, total: int, step: int) -> None:
    told("try", before + step, total, None)


def _rank(row: Row) -> tuple[Any, ...]:
    if "error" in row:
        return (1,)
    return (0, -row["accuracy"], row["seconds"], row["peak_bytes"] or 0)


def _probed(trial: Trial, known: Row | None) -> Row:
    """What a short run says, with `startup_seconds`: what the process takes beside training and testing.

    The data is read once: what is `known` of it from another student holds for all.
    """
    begun = time.monotonic()
    row = _run(trial if known is None else replace(trial, data=None), lambda step: None)
    if "error" not in row:
        row["startup_seconds"] = time.monotonic() - begun - row["seconds"]
        if known is not None:
            row["startup_seconds"] += known["data_seconds"] - row["data_seconds"]
            row |= {"all_images": known["all_images"], "data_seconds": known["data_seconds"]}
    return row


def _shares(probes: list[Row], recipe_steps: int, left: float, minutes: float) -> Shares:
    """Share the seconds that are left among the students that can be trained. Raises SettingError."""
    able = [row for row in probes if "error" not in row]
    if not able:
        raise SettingError(probes[0]["error"])
    per_image, per_step = (sum(row[key] for row in able) for key in ("seconds_per_image", "seconds_per_step"))
    images = min(able[0]["all_images"], max(LEAST_TEST_IMAGES, int(TEST_SHARE * left / per_image)))
    fixed = sum(row["startup_seconds"] for row in able) + images * per_image
    steps = min(recipe_steps, int(SAFETY * (left - fixed) / per_step))
    if steps < min(LEAST_STEPS, recipe_steps):
        spent = 60 * minutes - left
        needed = (spent + fixed + min(LEAST_STEPS, recipe_steps) * per_step / SAFETY) / 60
        raise SettingError(
            f"{minutes:g} minutes are too short for {len(able)} students here, wanted at least {1.2 * needed:.2f}: "
            "give more, or a bundle with fewer students"
        )
    seconds = {row["student"]: steps * row["seconds_per_step"] for row in able}
    beside = {row["student"]: row["startup_seconds"] + images * row["seconds_per_image"] for row in able}
    return Shares(steps, images, seconds, beside)


def _run(trial: Trial, told: Callable[[int], None]) -> Row:
    """The trial in a process of its own -> what it found, or {"student", "error"}."""
    command = [sys.executable, "-m", "edgedd.device.trial"]
    last: Row = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError):  # it died before it read
                process.stdin.write(trial.as_json())
                process.stdin.close()
            for line in process.stdout:
                last = loads(line)
                if "step" in last:
                    told(last["step"])
        finally:
            process.kill()
    if "step" in last or not last:
        last = {"error": f"its process ended with status {process.returncode} (memory?): try a smaller student"}
    return {"student": trial.student, **last}
