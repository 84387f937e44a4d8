"""One gradient rule an operator, in standard ONNX operators only.

A rule takes the Step of a node and returns {input position: name of the gradient} for the inputs that are needed.
Broadcasting is undone by summing, assuming that a dynamic dimension is never broadcast. Convolution and
normalisation have a file of their own.
"""

import math
from collections.abc import Callable

import numpy as np

from edgedd.exporting.convolution import conv
from edgedd.exporting.differentiate import Step
from edgedd.exporting.pooling import average_pool, global_average_pool, instance_normalization, max_pool

Rule = Callable[[Step], dict[int, str]]


def _unbroadcast(step: Step, gradient: str, position: int) -> str:
    """Sum a gradient of the output's shape to the shape of input `position`."""
    b, target, source = step.builder, step.shape(step.inputs[position]), step.shape(step.output)
    extra = len(source) - len(target)
    if extra:
        gradient = b.node("ReduceSum", gradient, b.integers(*range(extra)), keepdims=0)
    stretched = [i for i, size in enumerate(target) if size == 1 and source[extra + i] != 1]
    return b.node("ReduceSum", gradient, b.integers(*stretched), keepdims=1) if stretched else gradient


def identity(step: Step) -> dict[int, str]:
    """y = x."""
    return {0: step.gradient}


def add(step: Step) -> dict[int, str]:
    """y = a + b."""
    return {i: _unbroadcast(step, step.gradient, i) for i in step.needed}


def sub(step: Step) -> dict[int, str]:
    """y = a - b."""
    signed = {i: step.gradient if i == 0 else step.builder.node("Neg", step.gradient) for i in step.needed}
    return {i: _unbroadcast(step, gradient, i) for i, gradient in signed.items()}


def mul(step: Step) -> dict[int, str]:
    """y = a b."""
    product = {i: step.builder.node("Mul", step.gradient, step.inputs[1 - i]) for i in step.needed}
    return {i: _unbroadcast(step, gradient, i) for i, gradient in product.items()}


def div(step: Step) -> dict[int, str]:
    """y = a / b: the gradients are g / b and -(g / b) y."""
    b = step.builder
    first = b.node("Div", step.gradient, step.inputs[1])
    gradients = {0: first} if 0 in step.needed else {}
    if 1 in step.needed:
        gradients[1] = b.node("Neg", b.node("Mul", first, step.output))
    return {i: _unbroadcast(step, gradient, i) for i, gradient in gradients.items()}


def relu(step: Step) -> dict[int, str]:
    """y = max(x, 0). A steep HardSigmoid is the fastest 0/1 mask: one pass, where Greater and Cast take two."""
    b = step.builder
    return {0: b.node("Mul", step.gradient, b.node("HardSigmoid", step.output, alpha=1e38, beta=0.0))}


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
        gradients[2] = _unbroadcast(step, b.scaled(g, beta), 2)
    return gradients


def matmul(step: Step) -> dict[int, str]:
    """y = A B over leading dimensions that broadcast."""
    b, ranks = step.builder, [len(step.shape(name)) for name in step.inputs]
    if min(ranks) < 2:
        raise step.refusal("an input is a vector, wanted matrices: reshape it to (1, k) or (k, 1)")
    turned = [b.node("Transpose", n, perm=_last_two_swapped(r)) for n, r in zip(step.inputs, ranks, strict=True)]
    gradients = {}
    if 0 in step.needed:
        gradients[0] = _unbroadcast(step, b.node("MatMul", step.gradient, turned[1]), 0)
    if 1 in step.needed:
        gradients[1] = _unbroadcast(step, b.node("MatMul", turned[0], step.gradient), 1)
    return gradients


def _last_two_swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def reshape(step: Step) -> dict[int, str]:
    """The same numbers in another shape."""
    b = step.builder
    return {0: b.node("Reshape", step.gradient, b.node("Shape", step.inputs[0]))}


def transpose(step: Step) -> dict[int, str]:
    """Axes in another order; by default reversed."""
    order = step.attributes.get("perm", range(len(step.shape(step.inputs[0])))[::-1])
    return {0: step.builder.node("Transpose", step.gradient, perm=np.argsort(list(order)).tolist())}


def log_softmax(step: Step) -> dict[int, str]:
    """y = x - log sum exp x: the gradient is g - softmax(x) sum g."""
    b, axis = step.builder, int(step.attributes.get("axis", -1))
    total = b.node("ReduceSum", step.gradient, b.integers(axis), keepdims=1)
    return {0: b.node("Sub", step.gradient, b.node("Mul", b.node("Exp", step.output), total))}


def reduce_sum(step: Step) -> dict[int, str]:
    """Sum over constant axes, or over all."""
    b, axes = step.builder, step.integers(1)
    if not axes and step.attributes.get("noop_with_empty_axes", 0):
        return {0: step.gradient}
    gradient = step.gradient
    if axes and not step.attributes.get("keepdims", 1):
        gradient = b.node("Unsqueeze", gradient, b.integers(*axes))
    return {0: b.node("Expand", gradient, b.node("Shape", step.inputs[0]))}


def reduce_mean(step: Step) -> dict[int, str]:
    """Mean over constant axes, or over all: the sum divided by how many."""
    b, axes, shape = step.builder, step.integers(1), step.shape(step.inputs[0])
    summed = reduce_sum(step)[0]
    if not axes and step.attributes.get("noop_with_empty_axes", 0):
        return {0: summed}
    sides = [shape[axis] for axis in axes] if axes else list(shape)
    known = [side for side in sides if side is not None]
    if len(known) == len(sides):
        return {0: b.scaled(summed, 1 / math.prod(known))}
    sizes = [b.node("Cast", b.node("Size", name), to=1) for name in (step.output, step.inputs[0])]
    return {0: b.node("Mul", summed, b.node("Div", *sizes))}


GRADIENTS: dict[str, Rule] = {
    "Add": add,
    "AveragePool": average_pool,
    "Conv": conv,
    "Div": div,
    "Flatten": reshape,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "Identity": identity,
    "InstanceNormalization": instance_normalization,
    "LogSoftmax": log_softmax,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": mul,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "Relu": relu,
    "Reshape": reshape,
    "Sub": sub,
    "Transpose": transpose,
}
