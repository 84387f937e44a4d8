"""Gradients of arithmetic with broadcasting, and of functions of one element."""

import math

import numpy as np

from edgedd.exporting.broadcasting import unbroadcast
from edgedd.exporting.builder import FLOAT
from edgedd.exporting.differentiate import Step


def identity(step: Step) -> dict[int, str]:
    """y = x."""
    return {0: step.gradient}


def dropout(step: Step) -> dict[int, str]:
    """y = x: only the inference form."""
    training = step.constant(2)
    if training is not None and training.any():
        raise step.refusal("training_mode is set, wanted its inference form: export the network in eval mode")
    return {0: step.gradient}


def cast(step: Step) -> dict[int, str]:
    """y = x: only from float32 to float32."""
    if step.attributes["to"] != FLOAT:
        raise step.refusal("it casts away from float32, wanted a float32 network")
    return {0: step.gradient}


def add(step: Step) -> dict[int, str]:
    """y = a + b + ..."""
    return {i: unbroadcast(step, step.gradient, i) for i in step.needed}


def sub(step: Step) -> dict[int, str]:
    """y = a - b."""
    found = {i: unbroadcast(step, step.gradient, i) for i in step.needed}
    return {i: step.builder.node("Neg", gradient) if i else gradient for i, gradient in found.items()}


def mul(step: Step) -> dict[int, str]:
    """y = a b."""
    product = {i: step.builder.node("Mul", step.gradient, step.inputs[1 - i]) for i in step.needed}
    return {i: unbroadcast(step, gradient, i) for i, gradient in product.items()}


def div(step: Step) -> dict[int, str]:
    """y = a / b: the gradients are g / b and -(g / b) y."""
    b = step.builder
    first = b.node("Div", step.gradient, step.inputs[1])
    gradients = {}
    if 0 in step.needed:
        gradients[0] = unbroadcast(step, first, 0)
    if 1 in step.needed:
        gradients[1] = b.node("Neg", unbroadcast(step, b.node("Mul", first, step.output), 1))
    return gradients


def power(step: Step) -> dict[int, str]:
    """y = x^p: the gradients are g p x^(p - 1) and g y log x."""
    b, base, gradients = step.builder, step.inputs[0], {}
    if 0 in step.needed:
        gradients[0] = unbroadcast(step, b.node("Mul", step.gradient, _power_slope(step)), 0)
    if 1 in step.needed:
        slope = b.node("Mul", step.output, b.node("Log", base))
        gradients[1] = unbroadcast(step, b.node("Mul", step.gradient, slope), 1)
    return gradients


def _power_slope(step: Step) -> str:
    """p x^(p - 1)."""
    b, (base, exponent) = step.builder, step.inputs
    if exponent not in b.constants:
        return b.node("Mul", b.node("Pow", base, b.node("Sub", exponent, b.constant(1.0))), exponent)
    p = b.constants[exponent].astype(np.float32)
    return b.node("Mul", base if (p == 2).all() else b.node("Pow", base, b.constant(p - 1)), b.constant(p))


def neg(step: Step) -> dict[int, str]:
    """y = -x."""
    return {0: step.builder.node("Neg", step.gradient)}


def sqrt(step: Step) -> dict[int, str]:
    """y = sqrt x: the gradient is g / (2 y)."""
    b = step.builder
    return {0: b.node("Div", step.gradient, b.scaled(step.output, 2.0))}


def exp(step: Step) -> dict[int, str]:
    """y = exp x: the gradient is g y."""
    return {0: step.builder.node("Mul", step.gradient, step.output)}


def log(step: Step) -> dict[int, str]:
    """y = log x: the gradient is g / x."""
    return {0: step.builder.node("Div", step.gradient, step.inputs[0])}


def erf(step: Step) -> dict[int, str]:
    """y = erf x: the gradient is g 2 / sqrt(pi) exp(-x^2)."""
    b, x = step.builder, step.inputs[0]
    bell = b.node("Exp", b.node("Neg", b.node("Mul", x, x)))
    return {0: b.node("Mul", step.gradient, b.scaled(bell, 2 / math.sqrt(math.pi)))}
