"""Gradients of normalisations.

With g = dL/dy, xhat = (x - mean) / std and m() the mean over what is normalised together,
dL/dx = scale / std (g - m(g) - xhat m(g xhat)).
"""

import math
from collections.abc import Sequence

from edgedd.exporting.broadcasting import reshaped, unbroadcast
from edgedd.exporting.builder import FLOAT
from edgedd.exporting.differentiate import Step

BATCH_STATISTICS = "batch statistics"


def instance_normalization(step: Step) -> dict[int, str]:
    """y = scale xhat + bias over the pixels of an image's channel.

    The forward node is split in two, so that xhat is kept for the way back instead of x: LayerNormalization, then
    BatchNormalization as scale and bias, which is the fastest affine map of onnxruntime and is used again below.
    """
    b, rows, pixels = step.builder, step.builder.integers(0, 0, -1), math.prod(step.fixed(step.inputs[0], 2))
    place = b.nodes.index(step.node)
    after, b.nodes[place:] = b.nodes[place + 1 :], []
    xhat, inverse = _standardized(step, b.node("Reshape", step.inputs[0], rows), [pixels])
    plain = [b.node("Expand", b.constant(fill), b.node("Shape", step.inputs[1])) for fill in (0.0, 1.0)]
    scaled = b.node("BatchNormalization", xhat, *step.inputs[1:], *plain, epsilon=0.0)
    b.node("Reshape", scaled, b.node("Shape", step.inputs[0]), name=step.output)
    b.nodes.extend(after)
    g, last = b.node("Reshape", step.gradient, rows), b.integers(-1)
    mean_g = b.node("ReduceMean", g, last, keepdims=1)
    mean_gx = b.node("ReduceMean", b.node("Mul", g, xhat), last, keepdims=1)
    gradients = {}
    if 0 in step.needed:
        slope = b.node("Mul", inverse, b.node("Unsqueeze", step.inputs[1], b.integers(1)))
        centred = _affine_rows(step, g, slope, mean_g)
        share = b.node("Neg", b.node("Mul", slope, mean_gx))
        inner = b.node("Add", centred, _affine_rows(step, xhat, share, b.node("Mul", mean_g, b.constant(0.0))))
        gradients[0] = reshaped(step, inner)
    for position, mean in ((1, mean_gx), (2, mean_g)):
        if position in step.needed:
            gradients[position] = b.scaled(b.node("ReduceSum", mean, b.integers(0, 2), keepdims=0), pixels)
    return gradients


def _affine_rows(step: Step, rows: str, slope: str, mean: str) -> str:
    """slope (x - mean) of rows (n, C, P) with a slope and a mean (n, C, 1) for each -> (1, n C, P)."""
    b, flat = step.builder, step.builder.integers(-1)
    line = b.node("Reshape", rows, b.integers(1, -1, math.prod(step.fixed(step.inputs[0], 2))))
    slope, mean = b.node("Reshape", slope, flat), b.node("Reshape", mean, flat)
    ones = b.node("Expand", b.constant(1.0), b.node("Shape", slope))
    zeros = b.node("Expand", b.constant(0.0), b.node("Shape", slope))
    return b.node("BatchNormalization", line, slope, zeros, mean, ones, epsilon=0.0)


def _standardized(step: Step, x: str, last: Sequence[int]) -> tuple[str, str]:
    """xhat and 1 / std over the last axes, which have these lengths: one LayerNormalization, one pass."""
    b = step.builder
    # The bias is optional, but onnxruntime 1.17.1 reads it without looking and crashes.
    ones, zeros = (b.node("Expand", b.constant(fill), b.integers(*last)) for fill in (1.0, 0.0))
    attributes = {"axis": -len(last), "epsilon": step.attributes.get("epsilon", 1e-5)}
    xhat, _, inverse = b.nodes_of("LayerNormalization", (x, ones, zeros), 3, "", attributes)
    return xhat, inverse


def layer_normalization(step: Step) -> dict[int, str]:
    """y = scale xhat + bias over the last axes of each element in front of them."""
    b, g, rank = step.builder, step.gradient, len(step.shape(step.output))
    first, gradients = int(step.attributes.get("axis", -1)) % rank, {}
    if 2 in step.needed:
        gradients[2] = unbroadcast(step, g, 2)
    if step.needed == {2}:
        return gradients
    xhat, inverse = _standardized(step, step.inputs[0], step.fixed(step.inputs[0], first))
    if 0 in step.needed:
        axes, scaled = b.integers(*range(first, rank)), b.node("Mul", g, step.inputs[1])
        mean_g = b.node("ReduceMean", scaled, axes, keepdims=1)
        mean_gx = b.node("ReduceMean", b.node("Mul", scaled, xhat), axes, keepdims=1)
        projected = b.node("Add", b.node("Mul", xhat, mean_gx), mean_g)
        gradients[0] = b.node("Mul", b.node("Sub", scaled, projected), inverse)
    if 1 in step.needed:
        gradients[1] = unbroadcast(step, b.node("Mul", g, xhat), 1)
    return gradients


def batch_normalization(step: Step) -> dict[int, str]:
    """y = scale xhat + bias with a mean and a variance a channel, which are inputs."""
    if step.attributes.get("training_mode", 0):
        raise step.refusal("training_mode is set, wanted its inference form: see use_batch_statistics")
    b, g, (x, scale, _, mean, variance) = step.builder, step.gradient, step.inputs
    batch = step.node.doc_string == BATCH_STATISTICS
    spread = b.node("Add", variance, b.constant(step.attributes.get("epsilon", 1e-5)))
    inverse = b.node("Reciprocal", b.node("Sqrt", spread))
    slope = b.node("Mul", scale, inverse)
    gradients = {0: b.node("Mul", g, _over_pixels(step, slope))} if 0 in step.needed else {}
    if not batch and step.needed == {0}:
        return gradients
    axes = b.integers(0, *range(2, len(step.shape(x))))
    total = b.node("ReduceSum", g, axes, keepdims=0)
    product = b.node("ReduceSum", b.node("Mul", g, x), axes, keepdims=0)
    moment = b.node("Mul", b.node("Sub", product, b.node("Mul", total, mean)), inverse)
    if batch and 0 in step.needed:
        gradients[0] = b.node("Add", gradients[0], _through_statistics(step, slope, total, moment))
    found = gradients | {i: summed for i, summed in ((1, moment), (2, total)) if i in step.needed}
    if 3 in step.needed and not batch:
        found[3] = b.node("Neg", b.node("Mul", slope, total))
    if 4 in step.needed and not batch:
        found[4] = b.scaled(b.node("Div", b.node("Mul", scale, moment), spread), -0.5)
    return found


def _over_pixels(step: Step, channels: str) -> str:
    """(C,) as (C, 1, ...), to meet the images."""
    b, rank = step.builder, len(step.shape(step.inputs[0]))
    return b.node("Reshape", channels, b.integers(-1, *[1] * (rank - 2)))


def _through_statistics(step: Step, slope: str, total: str, moment: str) -> str:
    """-scale / std (m(g) + xhat m(g xhat)): BatchNormalization itself computes it, in one pass."""
    b, (x, _, _, mean, variance) = step.builder, step.inputs
    sizes = [b.node("Cast", b.node("Size", name), to=FLOAT) for name in (mean, x)]
    share = b.node("Neg", b.node("Mul", slope, b.node("Div", *sizes)))
    means = [b.node("Mul", share, summed) for summed in (moment, total)]
    return b.node("BatchNormalization", x, *means, mean, variance, epsilon=step.attributes.get("epsilon", 1e-5))
