"""Gradients of Conv and ConvTranspose: any strides, pads, dilations and groups, sizes fixed except for the batch.

Letters: n images, g groups, O and C channels of output and input, (k) kernel positions.
Timings are of onnxruntime on two x86 cores, batch 128, 64 channels, 16x16 pixels.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from edgedd.exporting.differentiate import Step

FEW_CHANNELS = 8


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution, one entry a spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    size: tuple[int, ...]
    result: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int

    @classmethod
    def of(cls, step: Step) -> "Geometry":
        """Read it from a node and the shapes around it; a ConvTranspose is read as the Conv that it turns round."""
        attributes, weight = step.attributes, step.fixed(step.inputs[1])
        rank = len(weight) - 2
        if "output_shape" in attributes:
            raise step.refusal("output_shape is set, wanted explicit pads: export the network with pads")
        if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise step.refusal("auto_pad is set, wanted explicit pads: export the network with pads")
        pads = tuple(attributes.get("pads", (0,) * 2 * rank))
        groups = int(attributes.get("group", 1))
        data, result = (step.inputs[0], step.output)[:: -1 if step.node.op_type == "ConvTranspose" else 1]
        return cls(
            kernel=weight[2:],
            strides=tuple(attributes.get("strides", (1,) * rank)),
            dilations=tuple(attributes.get("dilations", (1,) * rank)),
            begin=pads[:rank],
            end=pads[rank:],
            size=step.fixed(data, 2),
            result=step.fixed(result, 2),
            groups=groups,
            in_channels=weight[1] * groups,
            out_channels=weight[0],
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """How far the last kernel position lies from the first."""
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def window(self) -> dict[str, Any]:
        """The attributes that a convolution and its transposed one share."""
        pads = self.begin + self.end
        return {"strides": self.strides, "dilations": self.dilations, "pads": pads, "group": self.groups}

    @property
    def flips(self) -> bool:
        """Whether the input's gradient is itself a plain convolution."""
        pads = zip(self.begin, self.end, self.reach, strict=True)
        return set(self.strides) == {1} and all(max(b, e) <= reach for b, e, reach in pads)


def conv(step: Step) -> dict[int, str]:
    """y = W * x + bias."""
    geometry, gradients = Geometry.of(step), {}
    if 0 in step.needed:
        gradients[0] = _flipped_conv(step, geometry) if geometry.flips else _transposed_conv(step, geometry)
    if 1 in step.needed:
        gradients[1] = _weight(step, step.inputs[0], step.gradient, geometry)
    return gradients | _bias(step, geometry)


def conv_transpose(step: Step) -> dict[int, str]:
    """y = W^T * x + bias: the convolution turned round, so its gradients are those of Conv with x and g swapped."""
    geometry, gradients = Geometry.of(step), {}
    if 0 in step.needed:
        gradients[0] = step.builder.node("Conv", step.gradient, step.inputs[1], **geometry.window)
    if 1 in step.needed:
        gradients[1] = _weight(step, step.gradient, step.inputs[0], geometry)
    return gradients | _bias(step, geometry)


def _bias(step: Step, geometry: Geometry) -> dict[int, str]:
    if 2 not in step.needed:
        return {}
    axes = step.builder.integers(0, *range(2, 2 + len(geometry.kernel)))
    return {2: step.builder.node("ReduceSum", step.gradient, axes, keepdims=0)}


def _depthwise(geometry: Geometry) -> bool:
    return geometry.groups == geometry.in_channels == geometry.out_channels


def _flipped_conv(step: Step, geometry: Geometry) -> str:
    """Stride 1: a convolution with the turned kernel takes 19 ms, ConvTranspose 26."""
    b, rank, groups = step.builder, len(geometry.kernel), geometry.groups
    back, spatial = b.integers(*[-1] * rank), b.integers(*range(2, rank + 2))
    flipped = b.node("Slice", step.inputs[1], back, b.integers(*[-1_000_000] * rank), spatial, back)
    out, into = geometry.out_channels // groups, geometry.in_channels // groups
    if groups == 1:
        turned = b.node("Transpose", flipped, perm=[1, 0, *range(2, rank + 2)])
    else:
        parted = b.node("Reshape", flipped, b.integers(groups, out, into, *geometry.kernel))
        swapped = b.node("Transpose", parted, perm=[0, 2, 1, *range(3, rank + 3)])
        turned = b.node("Reshape", swapped, b.integers(geometry.in_channels, out, *geometry.kernel))
    pads = [r - p for p, r in zip(geometry.begin + geometry.end, geometry.reach * 2, strict=True)]
    return b.node("Conv", step.gradient, turned, pads=pads, dilations=geometry.dilations, group=groups)


def _transposed_conv(step: Step, geometry: Geometry) -> str:
    rows = zip(geometry.result, geometry.strides, geometry.reach, geometry.begin, geometry.end, strict=True)
    reached = [(o - 1) * s + r + 1 - b - e for o, s, r, b, e in rows]
    missing = [size - r for size, r in zip(geometry.size, reached, strict=True)]
    inputs = (step.gradient, step.inputs[1])
    return step.builder.node("ConvTranspose", *inputs, output_padding=missing, **geometry.window)


def _patches(step: Step, padded: str, geometry: Geometry, first: int = 2) -> list[str]:
    """For each kernel position the pixels it meets: (n, C, *result), or with `first` 1 (n, *result, C)."""
    b, rank = step.builder, len(geometry.kernel)
    if any(geometry.begin + geometry.end):
        before, behind = [0] * first, [0] * (2 - first)
        padded = b.node("Pad", padded, b.integers(*before, *geometry.begin, *behind, *before, *geometry.end, *behind))
    axes, strides = b.integers(*range(first, rank + first)), b.integers(*geometry.strides)
    patches = []
    for position in itertools.product(*map(range, geometry.kernel)):
        start = [p * d for p, d in zip(position, geometry.dilations, strict=True)]
        rows = zip(start, geometry.result, geometry.strides, strict=True)
        stop = [first + (o - 1) * s + 1 for first, o, s in rows]
        patches.append(b.node("Slice", padded, b.integers(*start), b.integers(*stop), axes, strides))
    return patches


def _weight(step: Step, data: str, gradient: str, geometry: Geometry) -> str:
    """Of the weight of the Conv that takes `data` (n, C, *size) to a result whose gradient is (n, O, *result)."""
    if _depthwise(geometry):
        return _depthwise_weight(step, data, gradient, geometry)
    if geometry.groups == 1 and geometry.in_channels > FEW_CHANNELS:
        return _channels_last_weight(step, data, gradient, geometry)
    return _grouped_weight(step, data, gradient, geometry)


def _channels_last_weight(step: Step, data: str, gradient: str, geometry: Geometry) -> str:
    """One product a kernel position, over all images and pixels: with the channels last, patches are whole rows.

    Takes 1.5 ms where products of each image, summed, take 2.1 (64 channels, 16x16 pixels, 8 images).
    """
    b, rank = step.builder, len(geometry.kernel)
    last = b.node("Transpose", data, perm=[0, *range(2, rank + 2), 1])
    turned = b.node("Transpose", gradient, perm=[1, 0, *range(2, rank + 2)])
    gradient = b.node("Reshape", turned, b.integers(geometry.out_channels, -1))
    patches = _patches(step, last, geometry, 1)
    rows = [b.node("Reshape", patch, b.integers(-1, geometry.in_channels)) for patch in patches]
    products = b.node("Concat", *(b.node("MatMul", gradient, row) for row in rows), axis=0)
    parted = b.node("Reshape", products, b.integers(-1, geometry.out_channels, geometry.in_channels))
    weight = b.node("Transpose", parted, perm=[1, 2, 0])
    return b.node("Reshape", weight, b.integers(geometry.out_channels, geometry.in_channels, *geometry.kernel))


def _grouped_weight(step: Step, data: str, gradient: str, geometry: Geometry) -> str:
    """One matrix product an image, a group and a kernel position, summed over images.

    With few channels (the first layer) the patches are put together and multiplied once.
    """
    b, groups = step.builder, geometry.groups
    out, into, kernel = geometry.out_channels // groups, geometry.in_channels // groups, geometry.kernel
    gradient = b.node("Reshape", gradient, b.integers(0, groups, out, -1))
    patches = _patches(step, data, geometry)
    rows = [b.node("Reshape", patch, b.integers(0, groups, into, -1)) for patch in patches]
    if into <= FEW_CHANNELS:
        product = _product(step, gradient, b.node("Concat", *rows, axis=2))
        parted = b.node("Reshape", product, b.integers(geometry.out_channels, *kernel, into))
        return b.node("Transpose", parted, perm=[0, len(kernel) + 1, *range(1, len(kernel) + 1)])
    products = [b.node("Unsqueeze", _product(step, gradient, row), b.integers(3)) for row in rows]
    return b.node("Reshape", b.node("Concat", *products, axis=3), b.integers(geometry.out_channels, into, *kernel))


def _product(step: Step, gradient: str, patches: str) -> str:
    """(n, g, O, pixels) and (n, g, C, pixels) -> (g, O, C), summed over images and pixels."""
    turned = step.builder.node("Transpose", patches, perm=[0, 1, 3, 2])
    product = step.builder.node("MatMul", gradient, turned)
    return step.builder.node("ReduceSum", product, step.builder.integers(0), keepdims=0)


def _depthwise_weight(step: Step, data: str, gradient: str, geometry: Geometry) -> str:
    b = step.builder
    axes, patches = b.integers(0, *range(2, 2 + len(geometry.kernel))), _patches(step, data, geometry)
    sums = [b.node("ReduceSum", b.node("Mul", gradient, patch), axes, keepdims=1) for patch in patches]
    return b.node("Reshape", b.node("Concat", *sums, axis=2), b.integers(geometry.out_channels, 1, *geometry.kernel))
