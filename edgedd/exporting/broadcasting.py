"""From the shape of a node's output back to the shape of its input."""

from collections.abc import Collection

from edgedd.exporting.builder import Dimension
from edgedd.exporting.differentiate import Step


def unbroadcast(step: Step, gradient: str, position: int) -> str:
    """Sum a gradient of the output's shape to the shape of input `position`."""
    return summed_to(step, gradient, step.shape(step.output), step.shape(step.inputs[position]))


def summed_to(step: Step, gradient: str, source: tuple[Dimension, ...], target: tuple[Dimension, ...]) -> str:
    """Undo the broadcast from `target` to `source`, assuming that a dynamic dimension is never broadcast."""
    b, extra = step.builder, len(source) - len(target)
    if extra:
        gradient = b.node("ReduceSum", gradient, b.integers(*range(extra)), keepdims=0)
    stretched = [i for i, size in enumerate(target) if size == 1 and source[extra + i] != 1]
    return b.node("ReduceSum", gradient, b.integers(*stretched), keepdims=1) if stretched else gradient


def spread(step: Step, gradient: str, axes: Collection[int]) -> str:
    """Expand a gradient, whose `axes` have length 1, to the shape of the first input.

    The shape is read from the input only where it has to be, since reading it keeps the input alive.
    """
    b, shape = step.builder, step.shape(step.inputs[0])
    if any(shape[axis] is None for axis in axes):
        return b.node("Expand", gradient, b.node("Shape", step.inputs[0]))
    return b.node("Expand", gradient, b.integers(*(1 if size is None else size for size in shape)))


def reshaped(step: Step, gradient: str) -> str:
    """The gradient in the shape of the first input."""
    b, shape = step.builder, step.shape(step.inputs[0])
    if shape.count(None) > 1:
        return b.node("Reshape", gradient, b.node("Shape", step.inputs[0]))
    return b.node("Reshape", gradient, b.integers(*lengths(shape)))


def lengths(shape: tuple[Dimension, ...]) -> list[int]:
    """A shape as Reshape takes it: -1 for the dynamic dimension."""
    return [-1 if size is None else size for size in shape]
