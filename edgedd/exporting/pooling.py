"""Gradients of pooling; sizes fixed except for the batch.

Timings are of onnxruntime on two x86 cores, batch 128, 64 channels, 32x32 pixels.
"""

import math
from typing import Any

import numpy as np

from edgedd.exporting.broadcasting import spread
from edgedd.exporting.builder import FLOAT
from edgedd.exporting.differentiate import Step
from edgedd.exporting.reductions import shared_among_largest

_NEAREST: dict[str, Any] = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


def average_pool(step: Step) -> dict[int, str]:
    """Mean of each window. Without overlap, every pixel of a window gets its share by a nearest-pixel Resize.

    Resize takes 6 ms, a depthwise ConvTranspose 11, reshape and Expand 37.
    """
    b, attributes = step.builder, step.attributes
    kernel, strides, pads = _window(step)
    size, result = step.fixed(step.inputs[0], 2), step.fixed(step.output, 2)
    rank = len(kernel)
    if attributes.get("count_include_pad", 0) or not any(pads):
        gradient = b.scaled(step.gradient, 1 / math.prod(kernel))
    else:
        counts = _counts(size, result, kernel, strides, pads)
        gradient = b.node("Mul", step.gradient, b.constant(1 / counts))
    if strides == kernel and not any(pads):
        scales = b.constant([1.0, 1.0, *kernel])
        spread = b.node("Resize", gradient, "", scales, **_NEAREST)
        missing = [s - o * k for s, o, k in zip(size, result, kernel, strict=True)]
        return {0: b.node("Pad", spread, b.integers(*[0] * (rank + 4), *missing)) if any(missing) else spread}
    channels = step.fixed(step.inputs[0], 1)[0]
    ones = b.node("Expand", b.constant(1.0), b.integers(channels, 1, *kernel))
    rows = zip(size, result, kernel, strides, pads[:rank], pads[rank:], strict=True)
    missing = [s - ((o - 1) * stride + k - first - last) for s, o, k, stride, first, last in rows]
    places: dict[str, Any] = {"strides": strides, "pads": pads, "output_padding": missing}
    return {0: b.node("ConvTranspose", gradient, ones, group=channels, **places)}


def _window(step: Step) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    attributes = step.attributes
    kernel = tuple(attributes["kernel_shape"])
    ones = (1,) * len(kernel)
    odd = attributes.get("ceil_mode", 0) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    if odd or tuple(attributes.get("dilations", ones)) != ones:
        raise step.refusal("ceil_mode, auto_pad or dilations are set, wanted plain windows with explicit pads")
    return kernel, tuple(attributes.get("strides", ones)), tuple(attributes.get("pads", (0,) * 2 * len(kernel)))


def _counts(
    size: tuple[int, ...],
    result: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
) -> np.ndarray:
    """How many pixels inside the image each window covers: (*result,)."""
    counts = np.ones((), np.float32)
    for axis, side in enumerate(size):
        first = np.arange(result[axis]) * strides[axis] - pads[axis]
        inside = np.minimum(first + kernel[axis], side) - np.maximum(first, 0)
        counts = counts[..., None] * inside.astype(np.float32)
    return counts


def global_average_pool(step: Step) -> dict[int, str]:
    """Mean over all pixels of a channel."""
    share = step.builder.scaled(step.gradient, 1 / math.prod(step.fixed(step.inputs[0], 2)))
    return {0: spread(step, share, range(2, len(step.shape(step.output))))}


def global_max_pool(step: Step) -> dict[int, str]:
    """Largest pixel of a channel; pixels that are equally large share the gradient."""
    return {0: shared_among_largest(step, step.output, step.gradient, range(2, len(step.shape(step.output))))}


def max_pool(step: Step) -> dict[int, str]:
    """Largest pixel of each window. Equally large pixels share the gradient, where windows tile the image.

    Elsewhere the forward node is made to give the places, and gradients are added there, which takes twice the time.
    """
    b = step.builder
    if _tiles(step):
        return {0: _shared_in_windows(step)}
    if len(step.node.output) == 1:
        step.node.output.append(b.fresh())
    if step.attributes.get("storage_order", 0):
        raise step.refusal("storage_order is set, wanted places in row-major order")
    _check_last_windows(step)
    flat = b.integers(-1)
    zeros = b.node("ConstantOfShape", b.node("Reshape", b.node("Size", step.inputs[0]), flat))
    places, gradients = b.node("Reshape", step.node.output[1], flat), b.node("Reshape", step.gradient, flat)
    spread = b.node("ScatterElements", zeros, places, gradients, axis=0, reduction="add")
    return {0: b.node("Reshape", spread, b.node("Shape", step.inputs[0]))}


def _tiles(step: Step) -> bool:
    """Whether every pixel lies in exactly one window."""
    attributes, kernel = step.attributes, list(step.attributes["kernel_shape"])
    ones, size = [1] * len(kernel), step.fixed(step.inputs[0], 2)
    plain = list(attributes.get("strides", ones)) == kernel and not any(attributes.get("pads", ()))
    plain = plain and attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and len(step.node.output) == 1
    whole = not any(side % k for side, k in zip(size, kernel, strict=True))
    return plain and whole and list(attributes.get("dilations", ones)) == ones


def _shared_in_windows(step: Step) -> str:
    b, kernel = step.builder, step.attributes["kernel_shape"]
    scales = b.constant([1.0, 1.0, *kernel])
    largest = b.node("Resize", step.output, "", scales, **_NEAREST)
    mask = b.node("Cast", b.node("Equal", step.inputs[0], largest), to=FLOAT)
    count = b.scaled(b.node("AveragePool", mask, kernel_shape=kernel, strides=kernel), math.prod(kernel))
    share = b.node("Resize", b.node("Div", step.gradient, count), "", scales, **_NEAREST)
    return b.node("Mul", mask, share)


def _check_last_windows(step: Step) -> None:
    """With ceil_mode a window can lie outside the image: runtimes disagree on whether it exists."""
    attributes, rank = step.attributes, len(step.attributes["kernel_shape"])
    if not attributes.get("ceil_mode", 0):
        return
    strides, pads = attributes.get("strides", [1] * rank), attributes.get("pads", [0] * 2 * rank)
    size, result = step.fixed(step.inputs[0], 2), step.fixed(step.output, 2)
    if any((o - 1) * s - first >= n for n, o, s, first in zip(size, result, strides, pads[:rank], strict=True)):
        raise step.refusal("with ceil_mode its last window lies outside the image, wanted windows that touch it")
