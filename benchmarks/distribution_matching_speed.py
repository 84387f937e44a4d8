"""DM and IID: iterations per second and peak memory against a plain eager loop that does the same arithmetic.

    python benchmarks/distribution_matching_speed.py [--rounds 8] [--threads 2] [--device cuda]

ConvNet-3 of width 128, 3x32x32, 10 classes, 10 synthetic and 256 real images each, SGD on pixels. The plain loop is
what the published code does on a processor: modules in float32, class by class, one step on the sum. Each contender
is a process of its own that waits while another works; a round gives every one a turn, in changing order, and ratios
are taken within a round. The floor is the convolutions' operations over the rate of large matrix products in the
precision used, in the same rounds. `precision` says what bfloat16 does to the loss and to the gradient of the images,
beside what another real batch does. Images are noise; IID's pool is not trained, as its training is not timed. Peaks
are the process's memory, or what the GPU had allocated. Writes benchmarks/results/distribution_matching_speed.json,
or distribution_matching_speed_cuda.json.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stored import RESULTS
from surroundings import surroundings
from torch import nn

from edgedd.distillation import siamese
from edgedd.distillation.compute import Compute
from edgedd.distillation.dm import DM
from edgedd.distillation.iid import IID
from edgedd.distillation.loop import Loop
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.labelled_images import LabelledImages
from edgedd.parameterization import Pixels
from edgedd.students import student

SHAPE, CLASSES, IPC, BATCH, WIDTH = (3, 32, 32), 10, 10, 256, 128
KINDS = ("dm", "iid")
PRODUCT = {"cpu": 2048, "cuda": 8192}  # side of the matrices whose product is the floor's rate
STEPS = {"cpu": {"edgedd": 2, "plain": 1, "product": 10}, "cuda": {"edgedd": 30, "plain": 10, "product": 100}}
Step = Callable[[], Any]


def data() -> LabelledImages:
    """1000 images of noise a class."""
    images = np.random.default_rng(0).integers(0, 256, (1000 * CLASSES, *SHAPE)).astype(np.uint8)
    labels = np.arange(len(images)) % CLASSES
    names = tuple(map(str, range(CLASSES)))
    return LabelledImages(images, labels, images[:CLASSES], labels[:CLASSES], names, "noise")


def our_loop(kind: str, compute: Compute) -> Loop:
    """A distillation of pixels under way."""
    generator, real = np.random.default_rng(0), RealImages.of(data(), compute)
    rows = np.concatenate([real.sample_class(c, IPC, generator) for c in range(CLASSES)])
    logits = 20 * np.eye(CLASSES)[np.repeat(np.arange(CLASSES), IPC)]
    synthetic = TrainableSet.start(Pixels(SHAPE, 16), real.normalised(rows).cpu().numpy(), logits, compute.device)
    method = DM(optimizer="sgd", width=WIDTH) if kind == "dm" else IID(optimizer="sgd", width=WIDTH, pool=3)
    loop = Loop(synthetic, method, real, compute, generator, rounding_from=2.0)
    loop.total = 2**31
    if kind == "iid":
        pool = loop.state.pool
        pool.networks = [pool.passes.fresh(generator) for _ in range(3)]
    return loop


class PlainConvNet(nn.Module):
    """The published ConvNet up to its last map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (SHAPE[0], WIDTH, WIDTH):
            layers += [nn.Conv2d(channels, WIDTH, 3, padding=1), nn.GroupNorm(WIDTH, WIDTH), nn.ReLU(inplace=True)]
            layers += [nn.AvgPool2d(2)]
        self.layers = nn.Sequential(*layers)
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 128, 4, 4)."""
        maps: torch.Tensor = self.layers(images)
        return maps


def covariance(maps: torch.Tensor) -> torch.Tensor:
    """Local covariance of IID as published: the mean over images of their centred products."""
    z = maps.flatten(2)
    z = z - z.mean(0, keepdim=True)
    return (z @ z.transpose(1, 2)).mean(0)


def plain_step(kind: str, device: str) -> Step:
    """One iteration as the published code takes it, class by class."""
    held, generator = data(), np.random.default_rng(0)
    mean, std = (torch.from_numpy(v).float()[:, None, None] for v in (held.mean, held.std))
    images = ((torch.from_numpy(held.train_images).float() / 255 - mean) / std).to(device)
    classwise = [np.flatnonzero(held.train_labels == c) for c in range(CLASSES)]
    start = torch.cat([images[rows[:IPC]] for rows in classwise])
    synthetic = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([synthetic], lr=1.0, momentum=0.5)
    pool = [PlainConvNet().to(device) for _ in range(3)]

    def step() -> None:
        network, trained = PlainConvNet().to(device), pool[int(generator.integers(3))]
        loss = torch.zeros((), device=device)
        for c in range(CLASSES):
            drawn = siamese.draw(siamese.NATURAL, generator)
            real = siamese.apply(images[generator.permutation(classwise[c])[:BATCH]], drawn)
            ours = siamese.apply(synthetic[c * IPC : (c + 1) * IPC], drawn)
            theirs, mine = network(real).detach(), network(ours)
            loss = loss + (theirs.flatten(1).mean(0) - mine.flatten(1).mean(0)).square().sum()
            if kind == "iid":
                loss = loss + 0.01 * (covariance(theirs) - covariance(mine)).square().sum()
                features = trained(ours).mean((2, 3))
                centre = features.mean(0)
                loss = loss + sum(0.05 * (f - centre).square().sum() for f in features)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def product_step(device: str) -> Step:
    """A large matrix product, in bfloat16 where the features are."""
    low, side = Compute.choose(device).bfloat16, PRODUCT[device]
    left = torch.randn(side, side, device=device).to(torch.bfloat16 if low else torch.float32)
    return lambda: left @ left


def contend(name: str, kind: str, threads: int, device: str) -> None:
    """In a process of its own: take as many steps as each line of stdin says, answer seconds and peak MiB."""
    torch.set_num_threads(threads)
    if name == "edgedd":
        loop = our_loop(kind, Compute.choose(device))
        step: Step = lambda: loop._step(None)  # noqa: E731
    else:
        step = plain_step(kind, device) if name == "plain" else product_step(device)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    for _ in range(2):
        step()
    wait()
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        for _ in range(int(line)):
            step()
        wait()
        on_gpu = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
        peak = on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(time.perf_counter() - begun, peak, flush=True)


class Contender:
    """The other end of `contend`."""

    def __init__(self, name: str, kind: str, threads: int, device: str) -> None:
        command = [sys.executable, __file__, "--contend", name, "--kind", kind, "--threads", str(threads)]
        command += ["--device", device]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout.readline().strip() != "ready":  # type: ignore[union-attr]
            raise SystemExit(f"{name} did not start")
        self.peak_mib = 0.0

    def seconds(self, steps: int) -> float:
        """Seconds a step."""
        self._process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        seconds, self.peak_mib = map(float, self._process.stdout.readline().split())  # type: ignore[union-attr]
        return seconds / steps

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


def paired(kind: str, rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Iterations per second and peak memory of both, and the share of the floor that ours reaches."""
    contenders = {name: Contender(name, kind, threads, device) for name in ("edgedd", "plain", "product")}
    steps = STEPS[device]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name in order:
            times[name].append(contenders[name].seconds(steps[name]))
    for contender in contenders.values():
        contender.close()
    ratios = sorted(theirs / ours for theirs, ours in zip(times["plain"], times["edgedd"], strict=True))
    rate = 2 * PRODUCT[device] ** 3 / min(times["product"])
    # every real image once, every synthetic one forward and for its gradient; IID's also through the pool's network
    passes = CLASSES * (BATCH + 2 * IPC * (1 if kind == "dm" else 2))
    floor = 2 * student(f"convnet3-w{WIDTH}", SHAPE, CLASSES).multiply_adds * passes / rate
    rows = {
        name: {
            "seconds": round(statistics.median(times[name]), 5),
            "iterations_per_second": round(1 / statistics.median(times[name]), 3),
            "peak_mib": round(contenders[name].peak_mib),
        }
        for name in ("edgedd", "plain")
    }
    facts = {
        "times_as_fast": round(statistics.median(ratios), 2),
        "quartiles": [round(ratios[rounds // 4], 2), round(ratios[-1 - rounds // 4], 2)],
        "rate_gflops": round(rate / 1e9, 1),
        "floor_seconds": round(floor, 5),
        "share_of_floor": round(floor / min(times["edgedd"]), 3),
    }
    print(kind, rows, facts, flush=True)
    return {"method": kind, **rows, **facts}


def precision() -> dict[str, Any]:
    """Loss and image gradient of DM in bfloat16 against float32, and of another real batch; same network and draws."""
    found = {}
    chosen = Compute.choose("cpu", compiled=True)
    for name, compute in (("float32", Compute(chosen.device, False, True)), ("bfloat16", chosen)):
        for batch in (1, 2):
            loop = our_loop("dm", compute)
            passes, generator = loop.state.passes, np.random.default_rng(batch)
            parameters = passes.fresh(np.random.default_rng(7))
            draws = [siamese.Draw("", np.zeros((1, 3)))] * CLASSES
            real = torch.cat([f.mean(1) for f in passes.real(parameters, loop.real, BATCH, draws, generator)])
            ours = passes.features(parameters, loop.synthetic.images()).reshape(CLASSES, IPC, -1).mean(1)
            loss = (ours - real).square().sum()
            loss.backward()
            found[name, batch] = (float(loss.detach()), loop.synthetic.factors["images"].grad.flatten())
    loss, gradient = found["float32", 1]
    cosine = {key: float(torch.cosine_similarity(gradient, g, dim=0)) for key, (_, g) in found.items()}
    return {
        "loss_changes_by": round(abs(found["bfloat16", 1][0] / loss - 1), 5),
        "gradient_cosine": round(cosine["bfloat16", 1], 5),
        "gradient_cosine_of_another_batch": round(cosine["float32", 2], 5),
        "loss_changes_by_another_batch": round(abs(found["float32", 2][0] / loss - 1), 5),
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--contend", choices=("edgedd", "plain", "product"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, default="dm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        contend(arguments.contend, arguments.kind, arguments.threads, arguments.device)
        return
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    rows = [paired(kind, arguments.rounds, arguments.threads, device) for kind in KINDS]
    command = f"python benchmarks/distribution_matching_speed.py --rounds {arguments.rounds}"
    command += f" --threads {arguments.threads}" + (" --device cuda" if device == "cuda" else "")
    results: dict[str, Any] = {"speed": rows, "rounds": arguments.rounds, "threads": arguments.threads}
    if device == "cpu":
        results["precision"] = precision()
    path = RESULTS / f"distribution_matching_speed{'_cuda' if device == 'cuda' else ''}.json"
    path.write_text(json.dumps({**results, "command": command, **surroundings(device)}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
