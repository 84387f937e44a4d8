"""Trajectory matching on the server: an outer iteration and experts against plain eager fp32 loops, and memory.

    python benchmarks/trajectory_speed.py [--rounds 5] [--threads 2] [--inner-steps 50] [--parts outer experts]

ConvNet-3 of width 128 on 3x32x32, 10 classes, pixels of noise, DSA. outer: MTT at one image a class, forward through
the inner steps and back to the pixels; the plain loop unrolls them in one graph, as the published one does. experts:
SGD on batches of 256; network-epochs are of 45,000 images, CIFAR-10 without its validation split, from a turn of a few
batches. Each contender is a process of its own, the plain one with torch's defaults; they wait while the other works
and take turns, and ratios are taken within a round. Both start from the same numbers: the first loss of each is kept,
and how far apart their first gradients are (the fast one's convolutions may run in bfloat16). Peak memory is that of
the process, and over what it held before its first step. Writes benchmarks/results/trajectory_speed.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

from edgedd.distillation.compute import multiplies_bfloat16

RESULTS = Path(__file__).parent / "results" / "trajectory_speed.json"
SHAPE, CLASSES, BATCH, EPOCH_IMAGES = (3, 32, 32), 10, 256, 45_000
KINDS = ("edgedd", "eager")
STEPS_PER_TURN = {"outer": 1, "experts": 4}  # of experts: batches


def problem(settings: dict[str, Any], fast: bool) -> tuple[Any, ...]:
    """Method, set, real images, state with one expert, and generator: the same start for both kinds."""
    import torch

    from edgedd.distillation import networks
    from edgedd.distillation.compute import Compute
    from edgedd.distillation.experts import ExpertsInMemory
    from edgedd.distillation.methods import method_named
    from edgedd.distillation.real_images import RealImages
    from edgedd.distillation.trainable_set import TrainableSet
    from edgedd.labelled_images import LabelledImages
    from edgedd.parameterization import Pixels

    compute = Compute.choose("cpu") if fast else Compute(torch.device("cpu"), bfloat16=False, compiled=False)
    noise = np.random.default_rng(0)
    count = BATCH * STEPS_PER_TURN["experts"]
    images, labels = noise.integers(0, 256, (count, *SHAPE), np.uint8), np.arange(count) % CLASSES
    names = tuple(map(str, range(CLASSES)))
    real = RealImages.of(LabelledImages(images, labels, images[:10], labels[:10], names, "noise"), compute)
    pixels = noise.standard_normal((CLASSES, *SHAPE)).astype(np.float32)
    synthetic = TrainableSet.start(Pixels(SHAPE, 16), pixels, 50 * np.eye(CLASSES), compute.device)
    method = method_named("mtt", {"inner_steps": str(settings["inner_steps"]), "width": str(settings["width"])})
    generator = np.random.default_rng(1)
    state = method.init(synthetic, real, compute, generator)
    start = torch.cat([p.flatten() for p in networks.fresh(state.passes.network, generator, compute.device)])
    drift = torch.from_numpy(noise.standard_normal(len(start)).astype(np.float32))
    state.experts = ExpertsInMemory([[start + 0.002 * epoch * drift for epoch in range(4)]])
    return method, synthetic, real, state, generator


class Edgedd:
    """As `edgedd distill` and `edgedd experts` run it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from edgedd.distillation.experts import ExpertTraining

        self.method, self.synthetic, self.real, self.state, self.generator = problem(settings, fast=True)
        self.training = ExpertTraining(self.state.passes, self.real)
        self.weights = self.state.experts.weights(0, 0)

    def outer(self) -> tuple[float, Any]:
        """One iteration: loss, and gradient of the pixels."""
        pixels = self.synthetic.factors["images"]
        pixels.grad = None
        self.state.rate.value = 0.01
        loss, _ = self.method.loss(self.synthetic, self.real, self.state, self.generator)
        loss.backward()
        return float(loss.detach()), pixels.grad

    def experts(self) -> tuple[float, Any]:
        """A few batches."""
        self.weights = self.training._epoch(self.weights, self.generator)
        return float(self.weights.square().sum()), self.weights - self.state.experts.weights(0, 0)


class Eager:
    """The published loops, plainly."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.method, self.synthetic, self.real, self.state, self.generator = problem(settings, fast=False)
        self.weights = self.state.experts.weights(0, 0).clone()

    def _loss(self, weights: Any, images: Any, classes: Any) -> Any:
        from torch.nn import functional

        passes = self.state.passes
        parts = zip(weights.split(passes.sizes), passes.shapes, strict=True)
        own = iter([part.view(shape) for part, shape in parts])
        for _ in range(3):
            images = functional.conv2d(images, next(own), None, 1, 1)
            images = functional.group_norm(images, images.shape[1], next(own), next(own))
            images = functional.avg_pool2d(functional.relu(images, inplace=True), 2)
        return functional.cross_entropy(functional.linear(images.flatten(1), next(own), next(own)), classes)

    def outer(self) -> tuple[float, Any]:
        """All inner steps in one graph."""
        import torch

        from edgedd.distillation import siamese
        from edgedd.distillation.trajectory_matching import inner_steps

        start, target = self.state.pair(self.generator)
        steps = inner_steps(self.method, self.state.schedule, CLASSES, self.generator, start.device)
        pixels, rate = self.synthetic.factors["images"], torch.tensor(0.01, requires_grad=True)
        pixels.grad = None
        weights, classes = start.clone().requires_grad_(), torch.arange(CLASSES)
        for step in steps:
            loss = self._loss(weights, siamese.apply(pixels[step.rows], step.draws[0]), classes[step.rows])
            weights = weights - rate * torch.autograd.grad(loss, weights, create_graph=True)[0]
        loss = (weights - target).square().sum() / (start - target).square().sum()
        loss.backward()
        return float(loss.detach()), pixels.grad

    def experts(self) -> tuple[float, Any]:
        """A few batches of torch's SGD."""
        import torch

        from edgedd.distillation import siamese

        weights = self.weights.requires_grad_()
        optimizer = torch.optim.SGD([weights], lr=0.01)
        order = self.generator.permutation(len(self.real.labels))
        for rows in np.split(order, len(order) // BATCH):
            drawn = siamese.draw(siamese.NATURAL, self.generator, BATCH)
            images = siamese.apply(self.real.normalised(rows), drawn)
            optimizer.zero_grad()
            self._loss(weights, images, self.real.labels[torch.from_numpy(rows)]).backward()
            optimizer.step()
        return float(weights.detach().square().sum()), weights.detach() - self.state.experts.weights(0, 0)


def contend(kind: str, part: str, settings: dict[str, Any], first_result: str) -> None:
    """A process that takes a turn for every line it reads; it says its seconds, and its peak memory."""
    import torch

    torch.set_num_threads(settings["threads"])
    contender = Edgedd(settings) if kind == "edgedd" else Eager(settings)
    turn = getattr(contender, part)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    value, gradient = turn()
    np.save(first_result, gradient.numpy())
    print(json.dumps([value, before]), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        turn()
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


def compare(part: str, settings: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds of a turn, and how many times longer the plain loop takes."""
    with tempfile.TemporaryDirectory() as folder:
        firsts = {kind: str(Path(folder) / f"{kind}.npy") for kind in KINDS}
        processes = {
            kind: subprocess.Popen(
                [sys.executable, __file__, "--contend", kind, part, json.dumps(settings), firsts[kind]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for kind in KINDS
        }
        begun = {kind: json.loads(_line(process)) for kind, process in processes.items()}
        rows: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        for turn in range(rounds + 1):
            for kind, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("turn\n")
                process.stdin.flush()
                told = json.loads(_line(process))
                if turn:  # the first warms up
                    rows[kind].append(told)
            print(part, {kind: rows[kind][-1:] for kind in KINDS}, file=sys.stderr)
        for process in processes.values():
            process.communicate()
        gradients = {kind: np.load(path) for kind, path in firsts.items()}
    return _summary(part, begun, rows, gradients)


def _summary(
    part: str, begun: dict[str, Any], rows: dict[str, Any], gradients: dict[str, np.ndarray]
) -> dict[str, Any]:
    ratios = [theirs[0] / ours[0] for ours, theirs in zip(rows["edgedd"], rows["eager"], strict=True)]
    apart = np.linalg.norm(gradients["edgedd"] - gradients["eager"]) / np.linalg.norm(gradients["eager"])
    result: dict[str, Any] = {"ratio": statistics.median(ratios), "ratios": ratios, "gradients_apart": float(apart)}
    for kind in KINDS:
        seconds = statistics.median(row[0] for row in rows[kind])
        peak = rows[kind][-1][1]
        result[kind] = {
            "seconds": seconds,
            "first_value": begun[kind][0],
            "peak_mib": peak,
            "peak_over_start_mib": peak - begun[kind][1],
        }
        if part == "experts":
            images = BATCH * STEPS_PER_TURN["experts"]
            result[kind]["network_epochs_per_hour"] = 3600 * images / (EPOCH_IMAGES * seconds)
    ours, theirs = result["edgedd"], result["eager"]
    result["memory_ratio"] = theirs["peak_mib"] / ours["peak_mib"]
    result["memory_over_start_ratio"] = theirs["peak_over_start_mib"] / max(1.0, ours["peak_over_start_mib"])
    return result


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def main() -> None:
    """Both parts, written to RESULTS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--inner-steps", type=int, default=50)
    parser.add_argument("--parts", nargs="+", choices=list(STEPS_PER_TURN), default=list(STEPS_PER_TURN))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--contend", nargs=4)
    arguments = parser.parse_args()
    if arguments.contend:
        kind, part, settings, first = arguments.contend
        contend(kind, part, json.loads(settings), first)
        return
    settings = {name: getattr(arguments, name) for name in ("threads", "width", "inner_steps")}
    results = {part: compare(part, settings, arguments.rounds) for part in arguments.parts}
    command = f"python benchmarks/trajectory_speed.py --rounds {arguments.rounds} --threads {arguments.threads}"
    about = {"command": f"{command} --inner-steps {arguments.inner_steps}", **surroundings()}
    about["bfloat16"] = multiplies_bfloat16(compiled=True)
    text = json.dumps({**about, **settings, "rounds": arguments.rounds, "results": results}, indent=1)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
