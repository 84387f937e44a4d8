"""Gradients of matrix products."""

from edgedd.exporting.broadcasting import summed_to, unbroadcast
from edgedd.exporting.builder import Dimension
from edgedd.exporting.differentiate import Step


def gemm(step: Step) -> dict[int, str]:
    """y = alpha A' B' + beta C, where ' is an optional transposition."""
    b, g, (left, right) = step.builder, step.gradient, step.inputs[:2]
    turn_a, turn_b = (int(step.attributes.get(name, 0)) for name in ("transA", "transB"))
    alpha, beta = (float(step.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    gradients = {}
    if 0 in step.needed:
        first, flags = ((right, g), (turn_b, 1)) if turn_a else ((g, right), (0, 1 - turn_b))
        gradients[0] = b.node("Gemm", *first, transA=flags[0], transB=flags[1], alpha=alpha)
    if 1 in step.needed:
        second, flags = ((g, left), (1, turn_a)) if turn_b else ((left, g), (1 - turn_a, 0))
        gradients[1] = b.node("Gemm", *second, transA=flags[0], transB=flags[1], alpha=alpha)
    if 2 in step.needed:
        gradients[2] = unbroadcast(step, b.scaled(g, beta), 2)
    return gradients


def matmul(step: Step) -> dict[int, str]:
    """y = A B over leading dimensions that broadcast; a vector is a row on the left and a column on the right."""
    b, g, vectors = step.builder, step.gradient, [len(step.shape(name)) == 1 for name in step.inputs]
    result = step.shape(step.output)
    leading = result[: len(result) - 2 + sum(vectors)]
    (left, left_shape), (right, right_shape) = (_as_matrix(step, i) for i in (0, 1))
    for axis in [axis for axis, vector in ((-1, vectors[1]), (-2, vectors[0])) if vector]:
        g = b.node("Unsqueeze", g, b.integers(axis))
    gradients = {}
    if 0 in step.needed:
        product = b.node("MatMul", g, _turned(step, right, len(right_shape)))
        gradients[0] = summed_to(step, product, leading + left_shape[-2:], left_shape)
    if 1 in step.needed and leading and len(right_shape) == 2:
        k, n = step.side(step.inputs[0], -1), 1 if vectors[1] else step.side(step.inputs[1], -1)
        rows = [b.node("Reshape", name, b.integers(-1, width)) for name, width in ((left, k), (g, n))]
        gradients[1] = b.node("Gemm", *rows, transA=1)
    elif 1 in step.needed:
        product = b.node("MatMul", _turned(step, left, len(left_shape)), g)
        gradients[1] = summed_to(step, product, leading + right_shape[-2:], right_shape)
    flat = {i: b.integers(-1 if i else -2) for i in gradients if vectors[i]}
    return gradients | {i: b.node("Squeeze", gradients[i], axis) for i, axis in flat.items()}


def _as_matrix(step: Step, position: int) -> tuple[str, tuple[Dimension, ...]]:
    """An input and its shape, a vector as a row or a column."""
    name, shape = step.inputs[position], step.shape(step.inputs[position])
    if len(shape) > 1:
        return name, shape
    return step.builder.node("Unsqueeze", name, step.builder.integers(position)), (*shape, 1) if position else (
        1,
        *shape,
    )


def _turned(step: Step, name: str, rank: int) -> str:
    return step.builder.node("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
