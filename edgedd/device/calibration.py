"""`edgedd calibrate`: how fast this machine trains and what an idle process takes, as a target profile.

Training graphs that are shipped are timed with single images and with four at once on one thread. From that, by
least squares of relative errors, come the rates of products and of moving bytes and the time of a call
(edgedd.planning.training_cost), and from all cores together their gain over one.
"""

import gzip
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgedd
from edgedd.atomic import only_writer, refuse_unwritable
from edgedd.augmentation import Augmentation
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import PREDICT, SET, TRAIN_STEP
from edgedd.bundles.writing import write_bundle
from edgedd.device.planned_bundle import facts_of_bundle
from edgedd.device.student import Student
from edgedd.errors import TargetError
from edgedd.parameterization import LowRank
from edgedd.planning import memory_model
from edgedd.planning.target import THIS_MACHINE, Source, Target, load_target, user_folder
from edgedd.planning.target_file import write_target
from edgedd.planning.this_machine import this_machine
from edgedd.planning.training_cost import Share, step_share, worker_share
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

STUDENTS = ("convnet3-w16", "convnet3-w64", "convnet3-w128")
FORM, NUM_CLASSES, IPC = LowRank((3, 32, 32), 8, 1, 4), 10, 16
RECIPE = Recipe(augmentation=Augmentation(flip=0.5, shift=2))
AT_ONCE = (1, 4)
POINT_SECONDS, LEAST_STEPS, MOST_STEPS = 1.5, 2, 40
MOST_SECONDS = 20.0  # for one graph
OWN_WEIGHT = 6  # of the bundle that is given, against each shipped graph
NEVER = 1e-12  # seconds of a unit of work whose time does not show
IDLE = """
import re, sys
from edgedd.device import Student
student = Student.load(sys.argv[1])
print(1024 * int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""


def calibrate(
    output: str | os.PathLike[str] | None = None,
    bundle: str | os.PathLike[str] | None = None,
    target: str = THIS_MACHINE,
) -> tuple[Path, Target]:
    """Measure, and write a profile -> its path and the target that it holds.

    Args:
        output: the file; by default that of `target` in the user's folder, which takes the place of the shipped one.
        bundle: also timed, so that predictions suit its network best.
        target: whose title, memory and storage are kept.

    Raises:
        TargetError: an unknown board, or a system without /proc.
        SettingError: the file cannot be written.
        BundleError: a bundle that is incomplete or too old.
    """
    base = this_machine() if target == THIS_MACHINE else load_target(target)
    path = Path(output) if output is not None else user_folder() / f"{base.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_unwritable(path)
    with only_writer(path), tempfile.TemporaryDirectory() as folder:
        own = [shipped_bundle(Path(folder) / name, name) for name in STUDENTS]
        points = _points_of(own) + (OWN_WEIGHT * _points(Bundle.load(bundle)) if bundle is not None else [])
        rates = fitted([share for share, _ in points], [seconds for _, seconds in points])
        together = _together(own[1], base.cores)
        floor = _idle_bytes(own[0])
        measured = _measured(base, rates, together, floor)
        write_target(path, measured)
    return path, measured


def shipped_bundle(path: Path, student: str) -> Bundle:
    """A bundle of a shipped graph and a set of noise; what predicts is never opened, so that the graph stands in."""
    graph = gzip.decompress((Path(__file__).parent / "graphs" / f"{student}.onnx.gz").read_bytes())
    generator, count = np.random.default_rng(0), IPC * NUM_CLASSES
    factors = {n: generator.standard_normal(s).astype(np.float32) for n, s in FORM.factor_shapes(count).items()}
    names, flat = tuple(map(str, range(NUM_CLASSES))), np.full(FORM.shape[0], 0.5)
    labels = generator.dirichlet(np.ones(NUM_CLASSES), count)
    noise = SyntheticSet.from_factors(
        FORM, factors=factors, labels=labels, mean=flat, std=flat, recipe=RECIPE, classes=names, provenance={}
    )
    facts: dict[str, Any] = {"edgedd": edgedd.__version__, "student": student, "image_shape": list(FORM.shape)}
    facts |= {"classes": list(names), "mode": "full", "target": None, "threads": None, "micro_batch": None}
    return write_bundle(path, {SET: noise.to_bytes(), TRAIN_STEP: graph, PREDICT: graph}, facts)


def fitted(shares: Sequence[Share], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Seconds of a floating-point operation, of a byte and of a call: all above 0, least squares of relative errors."""
    counts = np.array([(s.flops, s.moved_bytes, s.nodes) for s in shares])
    scale = counts.max(axis=0)
    relative = counts / scale / np.array(seconds)[:, None]
    best, least = np.full(3, NEVER), np.inf
    for kinds in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in (1, 2, 3)):
        columns = relative[:, kinds]
        found = np.linalg.lstsq(columns, np.ones(len(seconds)), rcond=None)[0]
        error = float(np.square(columns @ found - 1).sum())
        if (found > 0).all() and error < least:
            best, least = np.full(3, NEVER), error
            best[list(kinds)] = found / scale[list(kinds)]
    return float(best[0]), float(best[1]), float(best[2])


def step_times(student: Student, batch: int) -> list[float]:
    """Seconds of each of some steps on rows of the set, after a first one that is not counted."""
    rows = np.random.default_rng(0).permutation(student.synthetic.count)[:batch]
    shape, classes = student.bundle.image_shape, len(student.classes)
    nothing = np.zeros((0, *shape), np.float32), np.zeros((0, classes), np.float32)
    times = list[float]()
    student.step(*nothing, 1e-3, rows=rows)
    while len(times) < LEAST_STEPS or (sum(times) < POINT_SECONDS and len(times) < MOST_STEPS):
        begun = time.perf_counter()
        student.step(*nothing, 1e-3, rows=rows)
        times.append(time.perf_counter() - begun)
    return times


def usual(times: Sequence[float]) -> float:
    """What a step takes when nothing else is at work: the fastest fifth of them, at its upper end."""
    return float(np.quantile(times, 0.2))


def _points_of(bundles: Sequence[Bundle]) -> list[tuple[Share, float]]:
    """`_points` of each, of growing work, but for those that would take too long on this machine."""
    points = _points(bundles[0])
    for bundle in bundles[1:]:
        work = facts_of_bundle(bundle).work
        expected = points[-1][1] * max(AT_ONCE) * work.flops / max(points[-1][0].flops, 1)
        if expected * (LEAST_STEPS + 1) * len(AT_ONCE) > MOST_SECONDS:
            break
        points += _points(bundle)
    return points


def _points(bundle: Bundle) -> list[tuple[Share, float]]:
    """Work and usual seconds of a step of four images, with one and with four at once, on one thread."""
    facts, points = facts_of_bundle(bundle), []
    for images in AT_ONCE:
        student = Student.load(bundle.path, threads=1, micro_batch=images)
        share = worker_share(facts.work, batch=max(AT_ONCE), micro_batch=images)
        step = step_share(sum(map(memory_model.float_bytes, facts.parameters.values())))
        whole = Share(share.flops, share.moved_bytes + step.moved_bytes, share.nodes + step.nodes)
        points.append((whole, usual(step_times(student, max(AT_ONCE)))))
    return points


def _together(bundle: Bundle, cores: int) -> tuple[float, float]:
    """How many times as fast as one core all of them are, and what they reach in GFLOP/s."""
    images, each = max(AT_ONCE), 2 * max(AT_ONCE)
    flops = facts_of_bundle(bundle).work.flops
    alone = usual(step_times(Student.load(bundle.path, threads=1, micro_batch=images), each))
    if cores == 1:
        return 1.0, each * flops / alone / 1e9
    batch = min(each * cores, NUM_CLASSES * IPC)
    together = usual(step_times(Student.load(bundle.path, threads=cores, micro_batch=images), batch))
    return max(batch / each * alone / together, 1.0), batch * flops / together / 1e9


def _idle_bytes(bundle: Bundle) -> int:
    """Resident memory of a process of its own that has opened a bundle, without its graph."""
    done = subprocess.run(
        [sys.executable, "-c", IDLE, str(bundle.path)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode or not done.stdout.strip().isdecimal():
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise TargetError(f"an idle process could not be measured ({reason}), wanted Linux with /proc")
    return int(done.stdout) - memory_model.SESSION_PER_BYTE * bundle.file(TRAIN_STEP).stat().st_size


def _measured(base: Target, rates: tuple[float, float, float], together: tuple[float, float], floor: int) -> Target:
    """The board with what was measured in place of what was estimated."""
    flop, byte, call = rates
    gain = min(together[0], float(base.cores))
    graphs = "training graphs of ConvNet-3"
    texts = {
        "cores": "cores that this process may use (sched_getaffinity)",
        "effective_gflops": f"edgedd calibrate: a step of {STUDENTS[1]} on all cores",
        "runtime_floor_bytes": "edgedd calibrate: a process of its own with an open training graph, without the graph",
        "core_product_gflops": f"edgedd calibrate: rate of products on one core, fitted to {graphs}",
        "core_move_gbytes": f"edgedd calibrate: rate of moving bytes on one core, fitted to {graphs}",
        "node_microseconds": f"edgedd calibrate: time of a call, fitted to {graphs}",
        "parallel_gain": f"edgedd calibrate: all cores against one, on steps of {STUDENTS[1]}",
    }
    return replace(
        base,
        train=base.process_ram_bytes > floor,
        effective_gflops=together[1],
        runtime_floor_bytes=floor,
        core_product_gflops=1e-9 / flop,
        core_move_gbytes=1e-9 / byte,
        node_microseconds=1e6 * call,
        parallel_gain=gain,
        sources={**base.sources, **{key: Source("measured", text) for key, text in texts.items()}},
    )
