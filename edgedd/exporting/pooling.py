"""Gradients of pooling and of instance normalisation; sizes fixed except for the batch.

Timings are of onnxruntime on two x86 cores, batch 128, 64 channels, 32x32 pixels.
"""

import math
from typing import Any

import numpy as np

from edgedd.exporting.differentiate import Step

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
    b = step.builder
    share = b.scaled(step.gradient, 1 / math.prod(step.fixed(step.inputs[0], 2)))
    return {0: b.node("Expand", share, b.node("Shape", step.inputs[0]))}


def max_pool(step: Step) -> dict[int, str]:
    """Largest pixel of each window: the forward node is made to give the places, and gradients are added there."""
    b = step.builder
    if len(step.node.output) == 1:
        step.node.output.append(b.fresh("places"))
    if step.attributes.get("storage_order", 0):
        raise step.refusal("storage_order is set, wanted places in row-major order")
    flat = b.integers(-1)
    zeros = b.node("ConstantOfShape", b.node("Reshape", b.node("Size", step.inputs[0]), flat))
    places, gradients = b.node("Reshape", step.node.output[1], flat), b.node("Reshape", step.gradient, flat)
    spread = b.node("ScatterElements", zeros, places, gradients, axis=0, reduction="add")
    return {0: b.node("Reshape", spread, b.node("Shape", step.inputs[0]))}


def instance_normalization(step: Step) -> dict[int, str]:
    """y = scale xhat + bias with xhat = (x - mean) / std over the pixels of an image's channel.

    With g = dL/dy and m() the mean over pixels: dL/dx = scale / std (g - m(g) - xhat m(g xhat)). xhat comes back from
    x by LayerNormalization, one pass; scalars are folded into (n, C, 1) before they meet the large tensors.
    """
    b = step.builder
    pixels = math.prod(step.fixed(step.inputs[0], 2))
    rows, last = b.integers(0, 0, -1), b.integers(-1)
    # The bias is optional, but onnxruntime 1.17.1 reads it without looking and crashes.
    ones, zeros = (b.node("Expand", b.constant(fill), b.integers(pixels)) for fill in (1.0, 0.0))
    epsilon = step.attributes.get("epsilon", 1e-5)
    normalise = {"axis": -1, "epsilon": epsilon}
    x = b.node("Reshape", step.inputs[0], rows)
    xhat, _, inverse = b.nodes_of("LayerNormalization", (x, ones, zeros), 3, "", normalise)
    g = b.node("Reshape", step.gradient, rows)
    mean_g = b.node("ReduceMean", g, last, keepdims=1)
    mean_gx = b.node("ReduceMean", b.node("Mul", g, xhat), last, keepdims=1)
    gradients = {}
    if 0 in step.needed:
        scale = b.node("Mul", inverse, b.node("Unsqueeze", step.inputs[1], b.integers(1)))
        projected = b.node("Add", b.node("Mul", xhat, mean_gx), mean_g)
        inner = b.node("Mul", b.node("Sub", g, projected), scale)
        gradients[0] = b.node("Reshape", inner, b.node("Shape", step.inputs[0]))
    for position, mean in ((1, mean_gx), (2, mean_g)):
        if position in step.needed:
            summed = b.node("ReduceSum", mean, b.integers(0, 2), keepdims=0)
            gradients[position] = b.scaled(summed, pixels)
    return gradients
