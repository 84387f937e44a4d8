"""The gradient of Gather."""

import math

import numpy as np

from edgedd.exporting.broadcasting import lengths, reshaped
from edgedd.exporting.builder import INT64
from edgedd.exporting.differentiate import Step


def gather(step: Step) -> dict[int, str]:
    """Elements by index along an axis: the gradients of those with the same index add up."""
    shape, indices = step.shape(step.inputs[0]), step.builder.constants.get(step.inputs[1])
    axis = int(step.attributes.get("axis", 0)) % len(shape)
    size = step.side(step.inputs[0], axis)
    if indices is not None and len(np.unique(indices % size)) == indices.size:
        return {0: _gathered_back(step, indices % size, axis, size)}
    return {0: _added_up(step, axis, size)}


def _gathered_back(step: Step, indices: np.ndarray, axis: int, size: int) -> str:
    """Constant indices, all different: each element fetches its gradient, or the zero that is put at the end."""
    b, shape, gradient = step.builder, step.shape(step.inputs[0]), step.gradient
    if indices.ndim != 1:
        gradient = b.node("Reshape", gradient, b.integers(*lengths((*shape[:axis], indices.size, *shape[axis + 1 :]))))
    if indices.size < size:
        last = [int(i == axis) for i in range(len(shape))]
        gradient = b.node("Pad", gradient, b.integers(*[0] * len(shape), *last))
    places = np.full(size, indices.size)
    places[indices.ravel()] = np.arange(indices.size)
    return b.node("Gather", gradient, b.integers(*places.tolist()), axis=axis)


def _added_up(step: Step, axis: int, size: int) -> str:
    """Scattered into zeros (before, size, after). ScatterND would add in parallel, and lose terms of equal indices."""
    b, (data, indices) = step.builder, step.inputs
    before, after = step.shape(data)[:axis], math.prod(step.fixed(data, axis + 1))
    fixed = [length for length in before if length is not None]
    front = math.prod(fixed) if len(fixed) == len(before) else -1
    count = -1 if front > 0 else math.prod(step.fixed(indices))
    gradient = b.node("Reshape", step.gradient, b.integers(front, count, after))
    zeros = b.node("Reshape", b.node("ConstantOfShape", b.node("Shape", data)), b.integers(front, size, after))
    positive = b.node("Mod", b.node("Cast", indices, to=INT64), b.constant(size, np.int64))
    rows = b.node("Expand", b.node("Reshape", positive, b.integers(1, -1, 1)), b.node("Shape", gradient))
    return reshaped(step, b.node("ScatterElements", zeros, rows, gradient, axis=1, reduction="add"))
