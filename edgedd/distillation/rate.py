"""Bits as part of the objective: sets whose codes the compact file stores in few bytes.

A coefficient's codes over all images are taken as two-sided geometric (a rounded Laplace distribution), whose parameter
follows from their mean magnitude m: theta = m / (1 + sqrt(1 + m^2)). A code k then takes -log2((1 - theta) /
(1 + theta)) - |k| log2 theta bits, so that another step of magnitude costs -log2 theta: that is the price of moving
away from 0, coefficient by coefficient. Entropy-constrained quantisation (Chou, Lookabaugh and Gray 1989), with the
multiplier led to a number of bytes instead of being chosen.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from edgedd.distillation.trainable_set import TrainableSet

EVERY = 10
START = 0.1
OFF, CHANGE, MOST = 1.0, 2.0, 0.3
DEAD_ZONE = 0.6  # magnitudes below this share of a step become 0, where rounding to the nearest has 0.5


def codes(values: torch.Tensor, step: float) -> torch.Tensor:
    """Signed codes of any shape: sign(v) floor(|v| / step + 1 - DEAD_ZONE)."""
    return torch.sign(values) * torch.floor(values.abs() / step + (1 - DEAD_ZONE))


def thetas(coded: torch.Tensor) -> torch.Tensor:
    """Signed codes (n, ...) -> theta of each coefficient (...), as if half a code more was 1 where all are 0."""
    mean = coded.abs().mean(0).clamp_min(0.5 / len(coded))
    return mean / (1 + torch.sqrt(1 + mean * mean))


def code_bytes(synthetic: "TrainableSet") -> float:
    """Bytes that the codes of all stepped factors take under their fitted distributions, without tables."""
    total = 0.0
    for values in synthetic.stepped():
        coded = codes(values.detach(), synthetic.step or 1.0)
        theta = thetas(coded)
        bits = -torch.log2((1 - theta) / (1 + theta)) - coded.abs().mean(0) * torch.log2(theta)
        total += len(coded) * float(bits.sum()) / 8
    return total


@dataclass
class Rate:
    """A price on bits that leads a set to `target_bytes` of codes.

    Attributes:
        weight: the price of a bit an image, in units of the method's loss; adapted every EVERY steps. None: before the
            first step, which sets it to START of what would balance the method's own gradient.
        steps: charged so far.
        before: bytes when the weight was last adapted.
    """

    target_bytes: float
    weight: float | None = None
    steps: int = 0
    before: float | None = None

    def charge(self, synthetic: "TrainableSet") -> None:
        """Add to the gradients of the codes' values what the price pulls them towards 0 by."""
        slopes = [(values, _slope(values.detach(), synthetic.step or 1.0)) for values in synthetic.stepped()]
        if self.weight is None:
            own = sum(float(values.grad.abs().sum()) for values, _ in slopes if values.grad is not None)
            self.weight = START * own / max(sum(float(slope.abs().sum()) for _, slope in slopes), 1e-30)
        elif self.steps % EVERY == 0:
            self.adapt(code_bytes(synthetic))
        self.steps += 1
        for values, slope in slopes:
            if values.grad is not None:
                values.grad.add_(slope, alpha=self.weight)

    def adapt(self, measured_bytes: float) -> None:
        """Raise or lower the price as the codes take more or less than the target, and as they come to take more.

        A controller with a term of the change: Adam answers late, and would otherwise swing about the target. It has to
        be fast: as rounding begins codes grow by a fifth, and what is too much at the end is cut off. With OFF at 0.2
        runs of 600 and 800 iterations lost 2.2 points (CIFAR-10) and 0.9 (Fashion-MNIST; auto_choices*.json, "price").
        """
        measured = max(measured_bytes, 1.0)
        off, change = math.log(measured / self.target_bytes), math.log(measured / (self.before or measured))
        self.weight = (self.weight or 0.0) * math.exp(min(max(OFF * off + CHANGE * change, -MOST), MOST))
        self.before = measured


def _slope(values: torch.Tensor, step: float) -> torch.Tensor:
    """Bits an image, by value: the derivative of what magnitudes (n, ...) cost, at the present distributions."""
    theta = thetas(codes(values, step))
    return torch.sign(values) * (-torch.log2(theta) / (step * len(values)))
