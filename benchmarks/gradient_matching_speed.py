"""Gradient matching on the server: an iteration against a plain eager fp32 loop over classes, and the memory of both.

    python benchmarks/gradient_matching_speed.py [--rounds 5] [--threads 2] [--methods dcc dc] [--device cuda]

ConvNet-3 of width 128 on 3x32x32, 10 classes, 10 images a class, 256 real images a class, pixels of noise. The plain
loop does what the published one does: a pass of 256 real images and a twice differentiated pass of the synthetic ones
a class (DCC: of all of them), in a process of its own with torch's defaults. Contenders wait while the other works and
take turns; ratios are taken within a round. An iteration is an image step and, in 9 of 10, the network's 50 epochs
on the set between two; a turn times one step and one epoch. Both start from the same network, set and real images: the
first loss of each is kept too. Peaks are the process's memory, or what the GPU had allocated. Writes
benchmarks/results/gradient_matching_speed.json, or gradient_matching_speed_cuda.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from stored import RESULTS
from surroundings import surroundings

SHAPE, CLASSES, IPC, PER_CLASS = (3, 32, 32), 10, 10, 512
KINDS = ("edgedd", "eager")


def problem(method_name: str, fast: bool, device: str) -> tuple[Any, ...]:
    """Method, set, real images, state and generator; the same start for both kinds."""
    import torch

    from edgedd.distillation.compute import Compute
    from edgedd.distillation.methods import method_named
    from edgedd.distillation.real_images import RealImages
    from edgedd.distillation.trainable_set import TrainableSet
    from edgedd.labelled_images import LabelledImages
    from edgedd.parameterization import Pixels

    compute = Compute.choose(device) if fast else Compute(torch.device(device), bfloat16=False, compiled=False)
    noise = np.random.default_rng(0)
    images, labels = noise.integers(0, 256, (CLASSES * PER_CLASS, *SHAPE), np.uint8), np.arange(CLASSES * PER_CLASS)
    labels = labels % CLASSES
    names = tuple(map(str, range(CLASSES)))
    real = RealImages.of(LabelledImages(images, labels, images[:10], labels[:10], names, "noise"), compute)
    pixels = noise.standard_normal((CLASSES * IPC, *SHAPE)).astype(np.float32)
    hard = 50 * np.eye(CLASSES)[np.repeat(np.arange(CLASSES), IPC)]
    synthetic = TrainableSet.start(Pixels(SHAPE, 16), pixels, hard, compute.device)
    method = method_named(method_name)
    generator = np.random.default_rng(1)
    return method, synthetic, real, method.init(synthetic, real, compute, generator), generator


class Edgedd:
    """As `edgedd distill` runs it."""

    def __init__(self, method_name: str, device: str) -> None:
        self.method, self.synthetic, self.real, self.state, self.generator = problem(method_name, True, device)

    def step(self) -> float:
        """An image step, with the gradient in the pixels."""
        self.state.step = 0
        loss, _ = self.method.loss(self.synthetic, self.real, self.state, self.generator)
        loss.backward()
        return float(loss.detach())

    def epoch(self) -> None:
        """One of the network's epochs on the set."""
        images, labels = self.synthetic.images().detach(), self.synthetic.soft_labels().detach()
        self.state.train_epoch(images, labels, self.generator)


class Eager:
    """The published loop, plainly."""

    def __init__(self, method_name: str, device: str) -> None:
        self.method, self.synthetic, self.real, state, self.generator = problem(method_name, False, device)
        self.device = device
        self.parameters = [p.requires_grad_() for p in state.parameters]

    def _gradient(self, images: Any, classes: Any, graph: bool = False) -> list[Any]:
        import torch
        from torch.nn import functional

        own = iter(self.parameters)
        for _ in range(3):
            images = functional.conv2d(images, next(own), None, 1, 1)
            images = functional.group_norm(images, images.shape[1], next(own), next(own))
            images = functional.avg_pool2d(functional.relu(images, inplace=True), 2)
        outputs = functional.linear(images.flatten(1), next(own), next(own))
        loss = functional.cross_entropy(outputs, classes)
        return list(torch.autograd.grad(loss, self.parameters, create_graph=graph))

    def step(self) -> float:
        """Classes one after another."""
        import torch

        from edgedd.distillation.gradient_passes import distance

        images, target, total = self.synthetic.images(), None, torch.zeros((), device=self.device)
        self.generator.random((CLASSES, 3))  # what the method draws for an augmentation that is off
        for c in range(CLASSES):
            rows = self.real.sample_class(c, self.method.batch_real, self.generator)
            theirs = self._gradient(self.real.normalised(rows), torch.full((len(rows),), c, device=self.device))
            if self.method.summed:
                shares = [g / CLASSES for g in theirs]
                target = shares if target is None else [a + b for a, b in zip(target, shares, strict=True)]
            else:
                ours = self._gradient(
                    images[c * IPC : (c + 1) * IPC], torch.full((IPC,), c, device=self.device), graph=True
                )
                total = total + distance(ours, theirs)
        if target is not None:
            labels = torch.arange(CLASSES, device=self.device).repeat_interleave(IPC)
            total = distance(self._gradient(images, labels, graph=True), target)
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    def epoch(self) -> None:
        """Plain SGD on all images in one batch."""
        import torch

        labels = torch.arange(CLASSES, device=self.device).repeat_interleave(IPC)
        order = torch.from_numpy(self.generator.permutation(CLASSES * IPC)).to(self.device)
        self.generator.random((CLASSES * IPC, 3))  # as in `step`
        gradient = self._gradient(self.synthetic.images().detach()[order], labels[order])
        with torch.no_grad():
            for p, g in zip(self.parameters, gradient, strict=True):
                p.sub_(g, alpha=self.method.network_lr)


def contend(kind: str, method_name: str, threads: int, device: str) -> None:
    """A process that takes a step and an epoch for every line it reads; it says its seconds, and its peak memory."""
    import torch

    torch.set_num_threads(threads)
    contender = Edgedd(method_name, device) if kind == "edgedd" else Eager(method_name, device)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    first = contender.step()
    contender.epoch()
    print(json.dumps(first), flush=True)
    for _ in sys.stdin:
        times = [time.perf_counter()]
        for part in (contender.step, contender.epoch):
            part()
            wait()
            times.append(time.perf_counter())
        on_gpu = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
        peak = on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([times[1] - times[0], times[2] - times[1], peak]), flush=True)


def compare(method_name: str, rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Seconds of each part and of an iteration, and how many times longer the plain loop takes."""
    processes = {}
    rows: dict[str, Any] = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--contender", kind, "--methods", method_name, "--threads", str(threads)]
        command += ["--device", device]
        processes[kind] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        rows[kind] = {"first_loss": json.loads(processes[kind].stdout.readline())}  # type: ignore[union-attr]
    turns: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 else KINDS[::-1]:
            print(file=processes[kind].stdin, flush=True)
            turns[kind].append(json.loads(processes[kind].stdout.readline()))  # type: ignore[union-attr]
            print(method_name, kind, [round(value, 3) for value in turns[kind][-1]], flush=True)
    for kind, process in processes.items():
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        step, epoch, peak = (list(column) for column in zip(*turns[kind], strict=True))
        medians = {"step_seconds": statistics.median(step), "epoch_seconds": statistics.median(epoch)}
        rows[kind] |= {name: round(value, 5) for name, value in medians.items()} | {"peak_mib": round(max(peak))}
        whole = statistics.median(iteration(turn) for turn in turns[kind])
        rows[kind]["iterations_per_minute"] = round(60 / whole, 3)
    pairs = list(zip(turns["eager"], turns["edgedd"], strict=True))
    parts = {"step": lambda turn: turn[0], "epoch": lambda turn: turn[1], "iteration": iteration}
    for name, part in parts.items():
        ratios = [part(theirs) / part(ours) for theirs, ours in pairs]
        rows[f"{name}_ratio"] = round(statistics.median(ratios), 2)
        rows[f"{name}_ratios"] = [round(min(ratios), 2), round(max(ratios), 2)]
    print(rows, flush=True)
    return rows


def iteration(turn: list[float]) -> float:
    """Seconds of an iteration: 10 image steps a network, 50 epochs between them."""
    return turn[0] + 0.9 * 50 * turn[1]


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["dcc", "dc"], choices=["dcc", "dc"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--contender", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--print-only", action="store_true", help="leave the results file as it is")
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments.contender, arguments.methods[0], arguments.threads, arguments.device)
        return
    results = {name: compare(name, arguments.rounds, arguments.threads, arguments.device) for name in arguments.methods}
    command = f"python benchmarks/gradient_matching_speed.py --rounds {arguments.rounds} --threads {arguments.threads}"
    command += " --device cuda" if arguments.device == "cuda" else ""
    path = RESULTS / f"gradient_matching_speed{'_cuda' if arguments.device == 'cuda' else ''}.json"
    if not arguments.print_only:
        path.write_text(json.dumps({**results, "command": command, **surroundings(arguments.device)}, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
