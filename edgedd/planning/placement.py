"""How a training graph is run on a board: how many threads, how many images at once, what that takes and how long.

Of what fits into the board's memory, the fastest; with equal times the more images at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgedd.errors import BudgetError
from edgedd.parameterization import Parameterization
from edgedd.planning import memory_model
from edgedd.planning.memory_model import Breakdown, Shape, suited_micro_batch
from edgedd.planning.target import Target
from edgedd.planning.training_cost import Pace, Work, step_seconds
from edgedd.recipe import Recipe


@dataclass(frozen=True)
class GraphFacts:
    """What a training graph says of itself.

    Attributes:
        parameters: shape of each parameter, frozen ones as well.
        carried: shapes of the inputs that a step gives back changed.
        graph_bytes: size of its file.
        activation_bytes: peak of one image.
        batch_statistics: whether the batch is normalised by its own mean and variance.
        work: what one of its turns computes.
    """

    parameters: Mapping[str, Shape]
    carried: Mapping[str, Shape]
    graph_bytes: int
    activation_bytes: int
    batch_statistics: bool
    work: Work


@dataclass(frozen=True)
class Load:
    """What is trained on: image shape (C, H, W), bytes of the set's factors and labels as float32, images of a step."""

    image_shape: tuple[int, int, int]
    set_bytes: int
    batch: int


@dataclass(frozen=True)
class Placement:
    """Threads and images at once, peak memory by part, and predicted seconds of a step."""

    threads: int
    micro_batch: int
    memory: Breakdown
    step_seconds: float


def load_of(form: Parameterization, count: int, num_classes: int, recipe: Recipe) -> Load:
    """What a device holds of a set of `count` images, and the images of a step."""
    shapes = [*form.factor_shapes(count).values(), (count, num_classes)]
    return Load(form.shape, sum(map(memory_model.float_bytes, shapes)), min(recipe.batch_size, count))


def place(
    facts: GraphFacts, load: Load, target: Target, *, threads: int | None = None, micro_batch: int | None = None
) -> Placement:
    """The fastest way that fits `target`; threads and micro-batch are kept where they are given.

    Raises BudgetError, which lists the parts of the smallest way, when nothing fits.
    """
    ways = [placed(facts, load, target, *way) for way in _ways(facts, load.batch, target.cores, threads, micro_batch)]
    fitting = [way for way in ways if way.memory.total <= target.process_ram_bytes]
    if fitting:
        return min(fitting, key=lambda way: way.step_seconds)
    least = min(ways, key=lambda way: way.memory.total)
    advice = "choose a smaller student, or mode head or bias"
    if micro_batch and least.micro_batch > 1:
        advice = f"lower the micro-batch of {micro_batch}"
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in least.memory.parts().items())
    raise BudgetError(
        f"training takes at least {least.memory.total / 1e6:.1f} MB ({parts}; {least.micro_batch} image(s) at once, "
        f"{least.threads} thread(s)), wanted at most the {target.process_ram_bytes / 1e6:.1f} MB of {target.name}: "
        f"{advice}"
    )


def placed(facts: GraphFacts, load: Load, target: Target, threads: int, micro_batch: int) -> Placement:
    """Memory and time of one way, whether it fits or not."""
    memory = memory_model.predict(
        parameters=facts.parameters,
        carried=facts.carried,
        graph_bytes=facts.graph_bytes,
        activation_bytes=facts.activation_bytes,
        image_shape=load.image_shape,
        set_bytes=load.set_bytes,
        batch=load.batch,
        micro_batch=micro_batch,
        threads=threads,
        runtime_bytes=target.runtime_floor_bytes,
    )
    held = sum(map(memory_model.float_bytes, facts.parameters.values()))
    how = {"batch": load.batch, "micro_batch": micro_batch, "threads": threads}
    return Placement(threads, micro_batch, memory, step_seconds(facts.work, pace_of(target), held, **how))


def pace_of(target: Target) -> Pace:
    """As calibrated; else what `effective_gflops` says of training as a whole, shared evenly among the cores."""
    if target.core_product_gflops is None:
        return Pace(target.effective_gflops / target.cores, float("inf"), 0.0, target.cores, target.cores)
    assert target.core_move_gbytes and target.node_microseconds and target.parallel_gain
    seconds = target.node_microseconds * 1e-6
    return Pace(target.core_product_gflops, target.core_move_gbytes, seconds, target.cores, target.parallel_gain)


def _ways(
    facts: GraphFacts, batch: int, cores: int, threads: int | None, micro_batch: int | None
) -> Iterator[tuple[int, int]]:
    """Threads and micro-batch: what suits the cache and, for less memory, halves of it down to single images."""
    for used in (threads,) if threads else range(cores, 0, -1):
        if micro_batch:
            yield used, min(micro_batch, batch)
            continue
        images = suited_micro_batch(batch, used, facts.activation_bytes, batch_statistics=facts.batch_statistics)
        while images > 1:
            yield used, images
            images = -(-images // 2)
        yield used, 1
