"""How long a training step takes, said before it is taken: three kinds of work, each at a core's measured rate.

Letters: b images of a step, u of them in a micro-batch, w workers (micro-batches computed at once).

    seconds = w / gain(w) * (flops / product rate + bytes / move rate + nodes * time of a node)

of a worker's part of the step. Products alone do not tell: a narrow network moves many bytes for each multiplication,
and with small micro-batches the calls themselves take a good part (benchmarks/plan_check.py). Where only the rate of
training as a whole is known, the other two terms are in it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgedd.planning.memory_model import part_size, workers

STEP_NODES = 800  # what a step costs besides its micro-batches, in calls: Python, binding, folding, the optimizer
STEP_PASSES = 18  # times that a step reads or writes each parameter besides


@dataclass(frozen=True)
class Work:
    """What a training graph computes; counted by the exporter and stored in the graph's metadata.

    Attributes:
        flops: floating-point operations of matrix products and convolutions, per image.
        moved_bytes: bytes that nodes read and write, per image.
        fixed_bytes: the same per micro-batch, of what does not grow with its images: weights and their gradients.
        nodes: calls per micro-batch.
    """

    flops: int
    moved_bytes: int
    fixed_bytes: int
    nodes: int

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Work":
        """The inverse of `as_dict`; KeyError or TypeError for something else."""
        return cls(**{field.name: int(values[field.name]) for field in fields(cls)})


@dataclass(frozen=True)
class Pace:
    """How fast a machine trains.

    Attributes:
        product_gflops: 10^9 operations a second of products, on one core.
        move_gbytes: 10^9 bytes a second that nodes read and write, on one core; infinite where it is not known.
        node_seconds: time of a call; 0 where it is not known.
        cores: of the machine.
        parallel_gain: how many times as fast as one core all of them are.
    """

    product_gflops: float
    move_gbytes: float
    node_seconds: float
    cores: int
    parallel_gain: float

    def slowdown(self, at_once: int) -> float:
        """Of each worker when `at_once` work, against one that works alone."""
        if at_once <= 1 or self.cores == 1:
            return float(max(at_once, 1)) if self.cores == 1 else 1.0
        used = min(at_once, self.cores)
        return at_once / (1 + (self.parallel_gain - 1) * (used - 1) / (self.cores - 1))


@dataclass(frozen=True)
class Share:
    """Work in the three kinds: floating-point operations, bytes moved, calls."""

    flops: float
    moved_bytes: float
    nodes: float

    def seconds(self, pace: Pace) -> float:
        """On one core that works alone."""
        products, moved = self.flops / (1e9 * pace.product_gflops), self.moved_bytes / (1e9 * pace.move_gbytes)
        return products + moved + self.nodes * pace.node_seconds


def worker_share(work: Work, *, batch: int, micro_batch: int, threads: int = 1) -> Share:
    """What a worker computes of a step of `batch` images."""
    images = min(part_size(batch, micro_batch, threads), batch)
    turns = math.ceil(images / micro_batch)
    return Share(images * work.flops, images * work.moved_bytes + turns * work.fixed_bytes, turns * work.nodes)


def step_share(parameter_bytes: int) -> Share:
    """What a step takes besides its micro-batches."""
    return Share(0, STEP_PASSES * parameter_bytes, STEP_NODES)


def step_seconds(
    work: Work, pace: Pace, parameter_bytes: int, *, batch: int, micro_batch: int, threads: int = 1
) -> float:
    """Seconds of one step of `batch` images.

    Args:
        work: of the training graph.
        pace: of the machine.
        parameter_bytes: of all parameters once, float32.
    """
    share = worker_share(work, batch=batch, micro_batch=micro_batch, threads=threads)
    slower = pace.slowdown(workers(batch, micro_batch, threads))
    return slower * share.seconds(pace) + step_share(parameter_bytes).seconds(pace)


def step_flops(work: Work, batch: int) -> int:
    """Floating-point operations of one step of `batch` images."""
    return batch * work.flops
