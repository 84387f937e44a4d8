"""Gradients of operators that move elements without changing them: reshaping, joining, parting, cutting, padding."""

from collections.abc import Mapping

import numpy as np

from edgedd.exporting.broadcasting import reshaped, unbroadcast
from edgedd.exporting.differentiate import Step

UNBOUNDED = 2**31 - 1


def reshape(step: Step) -> dict[int, str]:
    """The same numbers in another shape."""
    return {0: reshaped(step, step.gradient)}


def expand(step: Step) -> dict[int, str]:
    """Copies along axes of length 1: the gradients of the copies add up."""
    return {0: unbroadcast(step, step.gradient, 0)}


def transpose(step: Step) -> dict[int, str]:
    """Axes in another order; by default reversed."""
    order = step.attributes.get("perm", range(len(step.shape(step.inputs[0])))[::-1])
    return {0: step.builder.node("Transpose", step.gradient, perm=np.argsort(list(order)).tolist())}


def concat(step: Step) -> dict[int, str]:
    """Inputs side by side: the gradient is split."""
    b, axis = step.builder, int(step.attributes["axis"])
    sizes = b.integers(*(step.side(name, axis) for name in step.inputs))
    parts = b.nodes_of("Split", (step.gradient, sizes), len(step.inputs), "", {"axis": axis})
    return {i: part for i, part in enumerate(parts) if i in step.needed}


def split(step: Step) -> dict[int, str]:
    """Parts of the input: their gradients side by side, and zeros for a part that the loss does not depend on."""
    b, found = step.builder, step.gradients
    parts = [found.get(name) or b.node("ConstantOfShape", b.node("Shape", name)) for name in step.node.output]
    return {0: b.node("Concat", *parts, axis=int(step.attributes.get("axis", 0)))}


def slice_(step: Step) -> dict[int, str]:
    """A box of the input, every so many elements: the gradient goes back there, zeros around it and between."""
    b, gradient, picked = step.builder, step.gradient, _picked(step)
    turned = [axis for axis, places in picked.items() if places.step < 0]
    if turned:
        ones = b.integers(*[-1] * len(turned))
        gradient = b.node("Slice", gradient, ones, b.integers(*[-UNBOUNDED] * len(turned)), b.integers(*turned), ones)
    ascending = {axis: places[::-1] if axis in turned else places for axis, places in picked.items()}
    gradient = _spaced(step, gradient, {axis: places.step for axis, places in ascending.items()})
    before, after = ([0] * len(step.shape(step.output)) for _ in range(2))
    for axis, places in ascending.items():
        before[axis] = places.start
        after[axis] = step.side(step.inputs[0], axis) - places.start - len(places) * places.step
    return {0: b.node("Pad", gradient, b.integers(*before, *after)) if any(before + after) else gradient}


def _picked(step: Step) -> dict[int, range]:
    """For each axis that is cut, which elements are picked."""
    starts, ends, axes, steps = (step.integers(i) for i in (1, 2, 3, 4))
    starts, ends = starts or [], ends or []
    shape, picked = step.shape(step.inputs[0]), {}
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, stride = axes[i] % len(shape) if axes else i, steps[i] if steps else 1
        if shape[axis] is None and start == 0 and end >= UNBOUNDED and stride == 1:
            continue
        picked[axis] = range(step.side(step.inputs[0], axis))[start:end:stride]
    return picked


def _spaced(step: Step, gradient: str, strides: Mapping[int, int]) -> str:
    """stride - 1 zeros behind each element along each axis."""
    if set(strides.values()) <= {1}:
        return gradient
    b, wide, after, long = step.builder, list[int](), list[int](), list[int]()
    for axis, size in enumerate(step.shape(step.output)):
        stride, length = strides.get(axis, 1), -1 if size is None else size
        wide += [length] if stride == 1 else [length, 1]
        after += [0] if stride == 1 else [0, stride - 1]
        long.append(length * stride)
    padded = b.node("Pad", b.node("Reshape", gradient, b.integers(*wide)), b.integers(*[0] * len(wide), *after))
    return b.node("Reshape", padded, b.integers(*long))


def pad(step: Step) -> dict[int, str]:
    """A border of constants, or with negative pads a border cut off: the pads of the gradient have the other sign."""
    mode = step.attributes.get("mode", b"constant").decode()
    if mode != "constant":
        raise step.refusal(f"its mode is {mode!r}, wanted 'constant'")
    axes = step.inputs[3:4] if step.integers(3) else []
    pads = [-int(width) for width in step.integers(1) or []]
    return {0: step.builder.node("Pad", step.gradient, step.builder.integers(*pads), *["", *axes][: 2 * len(axes)])}
