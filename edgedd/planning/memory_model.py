"""Peak resident memory of a device process that trains, said before it is taken: a sum of parts that one can name.

Letters: b images in a batch, u of them in a micro-batch, w workers (micro-batches computed at once), C, H, W.

Constants were measured with Python 3.11, numpy 2 and onnxruntime 1.31 on x86-64 (benchmarks/planner_memory.py):
- RUNTIME_BYTES: a process with numpy, edgedd.device and onnxruntime imported and a session of a tiny graph open.
- SESSION_PER_BYTE: what a session takes for each byte of the graph's file; its nodes become objects with names.
- SLACK_BYTES: what the C library and the arena keep beside the values that are counted, a worker more for its stack.
- HOLES: onnxruntime's arena takes regions of 1, 2, 4, ... MiB, hands out the smallest free chunk that fits and splits
  chunks of twice the size or more. New parameters and gradients, which outlive the activations around them, come to
  lie in large free chunks and spoil them: up to HOLES times the largest map, for each micro-batch at once, the less the
  smaller its share of all activations is, since more of other sizes can then fill what is left.
- ROUNDED: what rounding up to pages, chunks and the C library's blocks adds to activations.

CACHE_BYTES is what activations of a micro-batch may take by default, about a core's second-level cache, but for
LEAST_AT_ONCE images. ConvNet-3 of width 32 gains 5 % by larger ones; width 128 loses 6 % by single images.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

RUNTIME_BYTES = 68_000_000
SESSION_PER_BYTE = 80
SLACK_BYTES, WORKER_BYTES = 6_700_000, 1_500_000
HOLES = 6.97
ROUNDED = 1.06
CACHE_BYTES, LEAST_AT_ONCE = 1_700_000, 3
GHOST_BATCH = 32  # images of a micro-batch at most under batch normalisation: ghost batches, Hoffer et al. 2017
Shape = Sequence[int]


@dataclass(frozen=True)
class Breakdown:
    """Bytes of each part at the peak.

    Attributes:
        runtime: Python, numpy, onnxruntime.
        session: the open training graph.
        parameters: every copy of parameters, sums of gradients and optimizer state that is alive.
        activations: of all micro-batches computed at once.
        arena: what onnxruntime's arena or the C library takes on top.
        scratch: arrays of weight gradients between products.
        data: the set's factors and labels, the batch and its copies.
    """

    runtime: int
    session: int
    parameters: int
    activations: int
    arena: int
    scratch: int
    data: int

    @property
    def total(self) -> int:
        """Bytes of the whole process."""
        return sum(self.parts().values())

    @property
    def growth(self) -> int:
        """Bytes that training takes on top of the process that has opened the graph."""
        return self.total - self.runtime - self.session

    def parts(self) -> dict[str, int]:
        """Bytes by the part's name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def lines(self) -> list[str]:
        """One line a part and one of the total, in MB (10^6 bytes)."""
        return [f"{name:12}{size / 1e6:8.1f} MB" for name, size in (*self.parts().items(), ("total", self.total))]


def predict(
    *,
    parameters: Mapping[str, Shape],
    carried: Mapping[str, Shape],
    graph_bytes: int,
    activation_bytes: int,
    image_shape: tuple[int, int, int],
    set_bytes: int,
    batch: int,
    micro_batch: int,
    threads: int = 1,
    low_memory: bool = False,
    runtime_bytes: int = RUNTIME_BYTES,
) -> Breakdown:
    """Peak resident bytes of a process that takes training steps.

    Args:
        parameters: shape of each parameter, frozen ones as well.
        carried: shapes of the graph's inputs that a step gives back: `p.*`, `sum.*`, `b.*` and the optimizer's state.
        graph_bytes: size of the training graph's file.
        activation_bytes: peak of one image, from the graph's metadata.
        image_shape: (C, H, W).
        set_bytes: the set's factors and labels as float32.
        batch: images of a step.
        micro_batch: images computed at once by one worker.
        threads: workers at most.
        low_memory: whether the arena is off; there is one worker then.
        runtime_bytes: what Python and onnxruntime take on this machine.
    """
    at_once = 1 if low_memory else workers(batch, micro_batch, threads)
    images = at_once * min(micro_batch, batch)
    activations = images * activation_bytes
    largest = largest_map_bytes(parameters, image_shape)
    hole = largest * min(largest / max(activation_bytes, 1), 0.25)
    holes = HOLES * images * hole if backbone_trained(carried) and not low_memory else 0
    kernels = [float_bytes(shape) for name, shape in carried.items() if name.startswith("sum.") and len(shape) > 2]
    return Breakdown(
        runtime=runtime_bytes,
        session=SESSION_PER_BYTE * graph_bytes,
        parameters=_copies(parameters, carried, at_once),
        activations=activations,
        arena=round(holes + (ROUNDED - 1) * activations) + SLACK_BYTES + at_once * WORKER_BYTES,
        scratch=at_once * 3 * max(kernels, default=0),
        data=2 * set_bytes + 4 * math.prod(image_shape) * (2 * batch + 3 * images),
    )


def workers(batch: int, micro_batch: int, threads: int) -> int:
    """How many micro-batches are computed at once: a batch is shared in whole micro-batches."""
    return max(1, -(-batch // part_size(batch, micro_batch, threads)))


def suited_micro_batch(batch: int, threads: int, activation_bytes: int, *, batch_statistics: bool = False) -> int:
    """Images computed at once by default: what CACHE_BYTES hold, each worker's part of the batch shared evenly.

    With batch statistics, which should not depend on the threads, the batch itself in shares of GHOST_BATCH at most.
    """
    if batch_statistics:
        return even_share(batch, GHOST_BATCH)
    return even_share(-(-batch // threads), max(LEAST_AT_ONCE, CACHE_BYTES // max(activation_bytes, 1)))


def even_share(count: int, most: int) -> int:
    """Size of the smallest number of about equal shares of `count` that have at most `most` each; at least 1."""
    shares = -(-count // max(most, 1))
    return -(-count // max(shares, 1)) or 1


def part_size(batch: int, micro_batch: int, threads: int) -> int:
    """Images of a batch that one of `threads` workers takes, in whole micro-batches; the last may take fewer."""
    return micro_batch * -(-batch // (micro_batch * threads))


def largest_map_bytes(parameters: Mapping[str, Shape], image_shape: tuple[int, int, int]) -> int:
    """Bytes of the largest map of one image: that of the first convolution at the image's resolution, or the image."""
    first = next((shape[0] for shape in parameters.values() if len(shape) == 4), image_shape[0])
    return 4 * first * image_shape[1] * image_shape[2]


def backbone_trained(carried: Mapping[str, Shape]) -> bool:
    """Whether weights of convolutions are trained, whose new values come to lie among activations."""
    return any(name.startswith("sum.") and len(shape) > 2 for name, shape in carried.items())


def _copies(parameters: Mapping[str, Shape], carried: Mapping[str, Shape], at_once: int) -> int:
    """Bytes of all copies.

    Parameters in use; of trained ones also the last good ones and the next; state and its next; the zeros that sums
    start from; for each worker the sum, the sum with this micro-batch, and the gradient (a convolution's turned weight
    lies in the same place); with several workers their total, in numpy and as onnxruntime's value.
    """

    def total(of: Iterable[str]) -> int:
        return sum(float_bytes(carried[name]) for name in of)

    sums = total(name for name in carried if name.startswith("sum."))
    buffers = total(name for name in carried if name.startswith("b."))
    state = total(name for name in carried if not name.startswith(("sum.", "b.", "p.")))
    shared = 2 * sums if at_once > 1 else 0
    held = sum(map(float_bytes, parameters.values()))
    return held + 2 * sums + 2 * state + sums + 3 * sums * at_once + shared + (3 + at_once) * buffers


def float_bytes(shape: Shape) -> int:
    """Bytes of a float32 array."""
    return 4 * math.prod(shape)
