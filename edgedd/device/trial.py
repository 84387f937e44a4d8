"""One student trained in a process of its own, so that its peak memory is its own: `python -m edgedd.device.trial`.

A Trial as JSON on stdin; on stdout a JSON object a line: {"step"} now and then, at the end what was found or {"error"}.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgedd.device.decoding import decoded
from edgedd.device.student import PREDICT_BATCH, Student
from edgedd.errors import EdgeddError, SettingError
from edgedd.labelled_images import load_data
from edgedd.planning.machine import PROC, text_of
from edgedd.stratified import held_out
from edgedd.synthetic_set import SyntheticSet

HELD_OUT = 0.2
TOLD_EVERY_SECONDS = 0.2
Images = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What the process is to do.

    Attributes:
        bundle, student: what is trained.
        data: where test images come from; None for rows of the set that training leaves out.
        steps: of training, along the recipe's schedule shortened to as many.
        seconds: after which training ends, whatever the steps.
        test_images: how many at most; 0 only takes times: of a step, of predicting an image, of reading the data.
        seed: of the start, the order, the augmentation and of what is left out.
        threads: processor threads; None for the bundle's.
    """

    bundle: str
    student: str
    data: str | None
    steps: int
    seconds: float
    test_images: int
    seed: int
    threads: int | None

    def as_json(self) -> str:
        """What the process reads."""
        return json.dumps(asdict(self))


def run(trial: Trial, told: Callable[[int], None]) -> dict[str, Any]:
    """Train and test, or only take the time; `told` is called with the steps done. Raises EdgeddError."""
    student = Student.load(trial.bundle, student=trial.student, threads=trial.threads, seed=trial.seed)
    kept_apart = np.zeros(student.synthetic.count, bool) if trial.data else left_out(student.synthetic, trial.seed)
    ends = [time.perf_counter()]

    def on_step(step: int, steps: int, loss: float) -> bool:
        ends.append(time.perf_counter())
        told(step)
        return ends[-1] - ends[0] < trial.seconds

    result = student.fit(trial.seed, steps=trial.steps, rows=np.flatnonzero(~kept_apart), on_step=on_step)
    later = np.diff(ends)[1 if len(ends) > 2 else 0 :]  # the first step also makes the sessions' memory
    found: dict[str, Any] = {"student": trial.student, "steps": result.steps, "seconds": result.seconds}
    found |= {"seconds_per_step": float(later.mean()), "loss": result.final_loss, "peak_bytes": peak_bytes()}
    found["parameters"] = sum(values.size for values in student.parameters.values())
    if trial.test_images:
        images, truth = _test_images(trial, student, np.flatnonzero(kept_apart))
        return found | {"accuracy": student.evaluate(images, truth), "test_images": len(images)}
    return found | _timed(trial, student, int(kept_apart.sum()))


def left_out(synthetic: SyntheticSet, seed: int) -> np.ndarray:
    """Mask (n,) of the rows that training leaves out to test on; none where there is one image a class."""
    return held_out(np.arange(synthetic.count) // synthetic.ipc, HELD_OUT, seed)


def _timed(trial: Trial, student: Student, rows: int) -> dict[str, Any]:
    """Seconds for an image of prediction, and for reading the data with how many test images there are."""
    images = np.zeros((PREDICT_BATCH, *student.bundle.image_shape), np.float32)
    begun = time.perf_counter()
    student.predict(images)
    predicted = time.perf_counter()
    count = len(_test_images(trial, student, np.zeros(0, np.int64))[0]) if trial.data else rows
    found = {"seconds_per_image": (predicted - begun) / len(images), "all_images": count}
    return found | {"data_seconds": time.perf_counter() - predicted}


def _test_images(trial: Trial, student: Student, rows: np.ndarray) -> Images:
    """Test images, as many as are asked for, drawn by the seed; or the `rows` that were kept apart, decoded."""
    if trial.data is None:
        return decoded(student.synthetic, rows), rows // student.synthetic.ipc
    data = load_data(trial.data)
    if data.shape != student.bundle.image_shape or data.num_classes != len(student.classes):
        theirs, ours = ("x".join(map(str, shape)) for shape in (data.shape, student.bundle.image_shape))
        raise SettingError(
            f"the data has {theirs} images of {data.num_classes} classes, the bundle {ours} of {len(student.classes)}: "
            "give images of the same kind"
        )
    chosen = np.random.default_rng(trial.seed).permutation(len(data.test_labels))
    chosen = np.sort(chosen[: trial.test_images or len(chosen)])
    return data.test_images[chosen], data.test_labels[chosen]


def peak_bytes() -> int | None:
    """Most resident memory of this process so far; None where /proc is missing."""
    found = re.search(r"VmHWM:\s+(\d+) kB", text_of(PROC / "self" / "status"))
    return 1024 * int(found[1]) if found else None


def main() -> None:
    """The process: reads, runs, prints."""
    spoken = 0.0

    def told(step: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > TOLD_EVERY_SECONDS:
            spoken = time.monotonic()
            print(json.dumps({"step": step}), flush=True)

    try:
        found = run(Trial(**json.load(sys.stdin)), told)
    except EdgeddError as error:
        found = {"error": str(error)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
