"""examples/edge_app at work: answers, corrections and retrainings under a memory cap; what retraining costs answers.

    python benchmarks/edge_service.py [--requests 10000] [--trainings 50] [--limit-mb 160] [--output FILE]

The service is a process under a memory control group (v1 or v2) where one can be made. Its resident memory is read
every 50 requests; growth is the largest figure after warm-up (a tenth of the trainings) over the one at its end.
Latencies are those of a client on its socket, with the service idle and with its learner at work; and, to compare,
those of `classify` alone, beside the learner's process, and beside the same training on a thread of this process.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

import edgedd

ROOT = Path(__file__).parent.parent
APP = ROOT / "examples" / "edge_app"
sys.path.insert(0, str(APP))
from classifier import Classifier  # noqa: E402
from client import Client  # noqa: E402
from corrections import read  # noqa: E402

SHAPE, CLASSES, IPC = (3, 32, 32), 10, 10
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
EVERY = 50
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Print, and write the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--trainings", type=int, default=50)
    parser.add_argument("--student", default="convnet3-w32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit-mb", type=int, default=160)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "edge_service.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = made(Path(folder), options.student)
        result = {
            "command": "python benchmarks/edge_service.py",
            **surroundings(),
            **{key: getattr(options, key) for key in ("requests", "trainings", "student", "steps", "limit_mb")},
            "work": work(bundle, Path(folder), options),
            "compared": compared(bundle, Path(folder), 10 * options.steps),
        }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("work", "compared")}, indent=1))


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, C, H, W) of ten fixed patterns under noise, and their labels."""
    patterns = np.random.default_rng(0).integers(0, 256, (CLASSES, *SHAPE))
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.resize(np.arange(CLASSES), count))
    return np.clip(patterns[labels] + generator.normal(0, 60, (count, *SHAPE)), 0, 255).astype(np.uint8), labels


def made(folder: Path, student: str) -> Path:
    """A bundle of a set of such pictures."""
    images, labels = pictures(CLASSES * 50, seed=1)
    data = edgedd.LabelledImages(images, labels, images[:100], labels[:100], tuple("0123456789"), "made")
    recipe = edgedd.Recipe(steps=60, batch_size=32)
    synthetic = edgedd.distill(data, method="random", ipc=IPC, labels="hard", recipe=recipe)
    edgedd.export(synthetic, folder / "bundle", student=student)
    return folder / "bundle"


def work(bundle: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The service through its whole day."""
    images, labels = pictures(256, seed=2)
    every = max(options.requests // (options.trainings + 1), 1)
    resident, idle, beside, done, peak = list[int](), list[float](), list[float](), 0, 0
    with memory_group(options.limit_mb) as group, running(bundle, folder, options.steps, group) as (client, process):
        first = wait(client, trainings=1)
        warm = first["trainings"] + options.trainings // 10
        training, wanted, began = False, 1, time.perf_counter()
        while done < options.requests or wanted < options.trainings + 1:
            row = done % len(images)
            before = time.perf_counter()
            client.classify(images[row])
            (beside if training else idle).append(time.perf_counter() - before)
            done += 1
            if not training and done >= wanted * every:
                client.correct(images[row], str(labels[row]))
                client.ask(do="retrain")
                training = True
            if done % EVERY == 0 or done >= options.requests:
                status = client.ask(do="status")
                assert not status["error"], status
                peak = max(peak, learner_bytes(process.pid))
                if training and status["trainings"] > wanted:
                    training, wanted = False, wanted + 1
                if status["trainings"] > warm:
                    resident.append(status["resident_bytes"])
        status = client.ask(do="status")
        found = {"seconds": time.perf_counter() - began, "requests": done, "trainings": status["trainings"] - 1}
        held = {"warm_mb": resident[0] / 1e6, "largest_mb": max(resident) / 1e6, "last_mb": resident[-1] / 1e6}
        held |= {"growth": max(resident) / resident[0] - 1, "learner_peak_mb": peak / 1e6, **counted(group)}
    return found | held | {"idle_ms": spread(idle), "beside_learner_ms": spread(beside)}


def compared(bundle: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Milliseconds of `classify` in this process: alone, beside the learner's process, beside the same on a thread."""
    from learner import rehearse

    images, labels = pictures(256, seed=2)
    state = folder / "state"
    classifier, student = Classifier(bundle, state, 400_000), edgedd.Student.load(bundle, low_memory=True)
    alone, end = list[float](), time.perf_counter() + 5
    while time.perf_counter() < end:
        alone.append(timed(classifier, images[len(alone) % 256]))
    for row in range(16):
        classifier.correct(str(labels[row]), images[row].tobytes())
    words = [sys.executable, APP / "learner.py", bundle, state, "--steps", str(steps)]
    learner, process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL), list[float]()
    while learner.poll() is None:
        process.append(timed(classifier, images[len(process) % 256]))
    before = resident_bytes()
    training = threading.Thread(target=rehearse, args=(student, read(state / "corrections"), steps, 0))
    training.start()
    thread = list[float]()
    while training.is_alive():
        thread.append(timed(classifier, images[len(thread) % 256]))
    found = {"alone_ms": spread(alone), "process_ms": spread(process), "thread_ms": spread(thread)}
    return found | {"thread_keeps_mb": (resident_bytes() - before) / 1e6}


def timed(classifier: Classifier, image: np.ndarray) -> float:
    """Seconds of one answer."""
    began = time.perf_counter()
    classifier.classify(image.tobytes())
    return time.perf_counter() - began


@contextmanager
def running(bundle: Path, folder: Path, steps: int, group: Path | None) -> Iterator[tuple[Client, Any]]:
    """The service as a process, in the group from its first instruction on."""
    path = folder / "socket"
    words = [sys.executable, APP / "service.py", "--bundle", bundle, "--state", folder / "state", "--socket", path]
    words += ["--steps", str(steps), "--retrain-after", "1000000", "--retrain-seconds", "1000000"]
    enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
    process = subprocess.Popen(["/bin/sh", "-c", enter + 'exec "$@"', "sh", *words], env=ENVIRONMENT)
    try:
        yield connected(path, process), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def connected(path: Path, process: Any) -> Client:
    """Once the service listens."""
    while process.poll() is None:
        try:
            return Client(str(path))
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the service did not start")


def wait(client: Client, trainings: int) -> dict[str, Any]:
    """Until so many trainings are done."""
    while (status := client.ask(do="status"))["trainings"] < trainings:
        if status["error"]:
            raise SystemExit(status["error"])
        time.sleep(0.05)
    return status


@contextmanager
def memory_group(limit_mb: int) -> Iterator[Path | None]:
    """A memory control group; None where this user cannot make one."""
    first = (V1 / "memory.limit_in_bytes").exists()
    group = (V1 if first else V2) / f"edge-app-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit_mb * 10**6))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        time.sleep(0.5)
        group.rmdir()


def counted(group: Path | None) -> dict[str, Any]:
    """What the group says of all processes together, and how many were killed for memory."""
    if group is None:
        return {"group_peak_mb": None, "killed_for_memory": None}
    first = (group / "memory.max_usage_in_bytes").exists()
    peak = int((group / ("memory.max_usage_in_bytes" if first else "memory.peak")).read_text())
    events = (group / ("memory.oom_control" if first else "memory.events")).read_text()
    kills = next(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
    return {"group_peak_mb": peak / 1e6, "killed_for_memory": kills}


def learner_bytes(service: int) -> int:
    """Peak resident memory so far of the learner that runs; 0 when none does."""
    children = Path(f"/proc/{service}/task/{service}/children").read_text().split()
    return max((peak_bytes(f"/proc/{child}/status") for child in children), default=0)


def peak_bytes(path: str) -> int:
    """VmHWM."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def resident_bytes() -> int:
    """Of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: median, 95th and 99th percentile, largest."""
    found = np.percentile(np.array(seconds) * 1000, [50, 95, 99, 100])
    return dict(zip(("median", "p95", "p99", "largest"), (round(float(each), 2) for each in found), strict=True))


if __name__ == "__main__":
    main()
