"""Gradients of sums, means and maxima over constant axes, or over all."""

import math
from collections.abc import Collection

from edgedd.exporting.broadcasting import spread
from edgedd.exporting.builder import FLOAT
from edgedd.exporting.differentiate import Step


def reduce_sum(step: Step) -> dict[int, str]:
    """y = sum x."""
    axes = _axes(step)
    return {0: spread(step, _kept(step, step.gradient, axes), axes) if axes else step.gradient}


def reduce_mean(step: Step) -> dict[int, str]:
    """y = sum x / count."""
    b, axes, shape = step.builder, _axes(step), step.shape(step.inputs[0])
    if not axes:
        return {0: step.gradient}
    sides = [shape[axis] for axis in axes]
    known = [side for side in sides if side is not None]
    if len(known) == len(sides):
        share = b.scaled(step.gradient, 1 / math.prod(known))
    else:
        sizes = [b.node("Cast", b.node("Size", name), to=FLOAT) for name in (step.output, step.inputs[0])]
        share = b.node("Mul", step.gradient, b.node("Div", *sizes))
    return {0: spread(step, _kept(step, share, axes), axes)}


def reduce_max(step: Step) -> dict[int, str]:
    """y = max x; elements that are equally large share the gradient."""
    axes = _axes(step)
    if not axes:
        return {0: step.gradient}
    largest, gradient = (_kept(step, name, axes) for name in (step.output, step.gradient))
    return {0: shared_among_largest(step, largest, gradient, axes)}


def shared_among_largest(step: Step, largest: str, gradient: str, axes: Collection[int]) -> str:
    """g / count where x equals its maximum over the axes, which `largest` and `gradient` keep with length 1."""
    b = step.builder
    mask = b.node("Cast", b.node("Equal", step.inputs[0], largest), to=FLOAT)
    share = b.node("Div", gradient, b.node("ReduceSum", mask, b.integers(*axes), keepdims=1))
    return b.node("Mul", mask, share)


def _axes(step: Step) -> tuple[int, ...]:
    """The axes that are reduced, counted from the front."""
    rank, axes = len(step.shape(step.inputs[0])), step.integers(1)
    if not axes:
        return () if step.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(axis % rank for axis in axes)


def _kept(step: Step, name: str, axes: Collection[int]) -> str:
    """A value of the output's shape, with the reduced axes kept as length 1."""
    if step.attributes.get("keepdims", 1):
        return name
    return step.builder.node("Unsqueeze", name, step.builder.integers(*axes))
