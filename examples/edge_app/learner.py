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
from contextlib import suppress
from pathlib import Path

import corrections
import numpy as np
from generations import Generations

import edgedd

BATCH = 32  # half of it corrections, half rehearsed
LEARNING_RATE = 0.5  # of the recipe's
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
    """Train what is missing -> the generation, and how many of its corrections it classifies as they were corrected."""
    student = edgedd.Student.load(bundle, low_memory=True)
    generations = Generations(state, student)
    _start(student, generations)
    known = corrections.read(state / "corrections")
    number = max((correction.number for correction in known), default=0)
    size, classes = math.prod(student.bundle.image_shape), student.classes
    usable = [c for c in known if len(c.pixels) == size and c.name in classes]
    pixels = np.frombuffer(b"".join(c.pixels for c in usable), np.uint8).reshape(-1, *student.bundle.image_shape)
    labels = np.array([classes.index(c.name) for c in usable], int)
    if usable:
        rehearse(student, pixels, labels, steps, np.random.default_rng(number))
    if number:
        student.save(generations.path(number))
    right = int(np.sum(student.predict(pixels).argmax(1) == labels))
    return {"generation": number, "corrections": len(usable), "right": right}


def rehearse(
    student: edgedd.Student, pixels: np.ndarray, labels: np.ndarray, steps: int, generator: np.random.Generator
) -> None:
    """Train on corrected images, uint8 (m, C, H, W) with labels (m,), and as many images of the set in every step."""
    count, half = student.synthetic.count, BATCH // 2
    targets = np.eye(len(student.classes), dtype=np.float32)[labels]
    for step in range(steps):
        new = generator.choice(len(pixels), half, replace=len(pixels) < half)
        old = generator.choice(count, half, replace=count < half)
        rate = LEARNING_RATE * student.recipe.student_lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        student.step(student.normalise(pixels[new]), targets[new], rate, rows=old)


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
