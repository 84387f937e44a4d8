"""The process that trains: `python learner.py BUNDLE STATE [--steps N]`, started by the service, gone when it is done.

Makes generation 0 from the synthetic set when it is missing, and the generation that knows all corrections in
STATE/corrections, while it rehearses the synthetic set. Prints one line of JSON. The memory that training takes goes
back to the system with the process, and when memory runs out the kernel ends this one and not the service.
"""

import argparse
import ctypes
import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import corrections
import numpy as np
from generations import Generations

import edgedd

BATCH = 32  # half of it corrections, half rehearsed
LEAST_BUFFER = 16  # images
FAILED = 3
PR_SET_PDEATHSIG = 1


def main() -> int:
    """0 when the newest generation knows all corrections."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--parent", type=int, default=0, help="the service, whose end is this one's")
    options = parser.parse_args()
    _be_modest(options.parent)
    try:
        print(json.dumps(learn(options.bundle, options.state, options.steps)))
    except (edgedd.EdgeddError, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return FAILED
    return 0


def learn(bundle: Path, state: Path, steps: int) -> dict[str, object]:
    """Train what is missing -> the generation, and what came of it."""
    student = edgedd.Student.load(bundle, low_memory=True)
    generations = Generations(state, student)
    _start(student, generations)
    known = corrections.read(state / "corrections")
    number = max((correction.number for correction in known), default=0)
    usable = _usable(known, student)
    found = rehearse(student, usable, steps, number) if usable else {}
    if number:
        student.save(generations.path(number))
    return {"generation": number, **found}


def rehearse(
    student: edgedd.Student, usable: Sequence[corrections.Correction], steps: int, seed: int
) -> dict[str, object]:
    """Learn corrections while rehearsing the set in every step -> how many are right, and what became of the set."""
    pixels = np.stack([np.frombuffer(each.pixels, np.uint8) for each in usable])
    pixels = pixels.reshape(-1, *student.bundle.image_shape)
    # Room for all of them: it was their file that had to stay within a budget.
    rehearsal = edgedd.Rehearsal(student, buffer_bytes=2 * pixels.nbytes + LEAST_BUFFER * pixels[0].nbytes, seed=seed)
    rehearsal.add(pixels, [each.name for each in usable])
    result = rehearsal.fit(steps=steps, batch_size=BATCH)
    right = student.predict(pixels).argmax(1) == [student.classes.index(each.name) for each in usable]
    kept = {"before": result.old_accuracy.before, "after": result.old_accuracy.after}
    return {"corrections": len(usable), "right": int(right.sum()), "rehearsed_accuracy": kept}


def _usable(known: Sequence[corrections.Correction], student: edgedd.Student) -> list[corrections.Correction]:
    """Images of the bundle's size, of its classes and of as many new ones as it has outputs for."""
    fitting = [each for each in known if len(each.pixels) == math.prod(student.bundle.image_shape)]
    new = [each.name for each in fitting if each.name not in student.classes]
    named = {*student.classes, *list(dict.fromkeys(new))[: student.spare_classes]}
    return [each for each in fitting if each.name in named]


def _start(student: edgedd.Student, generations: Generations) -> None:
    """The weights of generation 0: from disk, or the bundle's own, or trained now."""
    path = generations.path(0)
    with suppress(edgedd.EdgeddError):
        student.load_weights(path)
        return
    if not student.bundle.holds("weights.safetensors"):
        student.fit(seed=0)
    student.save(path)
    student.load_weights(path)  # forgets the optimizer's state, as whoever finds the file begins without one


def _be_modest(parent: int) -> None:
    """Yield the processor, and end with the service."""
    os.nice(10)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        raise SystemExit(FAILED)  # it ended before this one was told


if __name__ == "__main__":
    sys.exit(main())
