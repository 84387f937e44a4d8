"""Layers as data, and the student families as tuples of them.

Convolutions in front of a norm carry no bias, because the norm takes it out again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Kind = Literal[
    "conv",
    "instance_norm",
    "batch_norm",
    "relu",
    "average_pool",
    "global_average_pool",
    "add",
    "flatten",
    "linear",
]
PARAMETERS: dict[str, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "instance_norm": ("weight", "bias"),
    "batch_norm": ("weight", "bias"),
    "linear": ("weight", "bias"),
}
BUFFERS: dict[str, tuple[str, ...]] = {"batch_norm": ("running_mean", "running_var")}


@dataclass(frozen=True)
class Layer:
    """One layer; its parameters are called `<name>.weight` and `<name>.bias`.

    Attributes:
        kind: what is computed; norms are affine with eps 1e-5.
        name: how later layers and the parameters refer to it.
        inputs: names of earlier layers; empty stands for the one before, or the images (b, C, H, W).
        channels: of the output of a convolution or linear layer.
        kernel: side of the square window of a convolution or an average pool.
        stride: of that window.
        pads: zeros around a convolution's input: top, left, bottom, right.
        groups: of a convolution's channels.
        bias: whether a convolution or linear layer has one.
    """

    kind: Kind
    name: str
    inputs: tuple[str, ...] = ()
    channels: int = 0
    kernel: int = 1
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    bias: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Last parts of the names of its parameters."""
        return tuple(part for part in PARAMETERS.get(self.kind, ()) if self.bias or part != "bias")

    @property
    def buffers(self) -> tuple[str, ...]:
        """Last parts of the names of its buffers."""
        return BUFFERS.get(self.kind, ())

    def weight(self, shape: Shape) -> Shape:
        """Shape of a convolution's or linear layer's weight on an input of `shape`, without the batch."""
        kernel = (self.kernel, self.kernel) if self.kind == "conv" else ()
        return (self.channels, shape[0] // self.groups, *kernel)

    def output(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`, both without the batch."""
        if self.kind == "linear":
            return (self.channels,)
        if self.kind == "flatten":
            return (math.prod(shape),)
        if self.kind == "global_average_pool":
            return (shape[0], 1, 1)
        if self.kind not in ("conv", "average_pool"):
            return shape
        top, left, bottom, right = self.pads
        height, width = (
            (side + extra - self.kernel) // self.stride + 1
            for side, extra in zip(shape[1:], (top + bottom, left + right), strict=True)
        )
        return (self.channels or shape[0], height, width)


def convnet(depth: int, width: int, shape: Shape, num_classes: int) -> tuple[Layer, ...]:
    """The field's ConvNet (Gidaris and Komodakis 2018; Zhao et al. 2021) on images of `shape` (C, H, W).

    `depth` blocks of 3x3 convolution, instance normalisation, ReLU and 2x2 average pooling, then one linear layer. The
    first convolution pads each side up to a multiple of 2^depth (28 -> 32 at depth 3, as the field does).
    """
    extra = [-side % 2**depth for side in shape[1:]]
    pads = (1 + extra[0] // 2, 1 + extra[1] // 2, 1 + -(-extra[0] // 2), 1 + -(-extra[1] // 2))
    layers: list[Layer] = []
    for i in range(depth):
        layers += [
            Layer("conv", f"block{i}.conv", channels=width, kernel=3, pads=(1,) * 4 if i else pads, bias=False),
            Layer("instance_norm", f"block{i}.norm"),
            Layer("relu", f"block{i}.relu"),
            Layer("average_pool", f"block{i}.pool", kernel=2, stride=2),
        ]
    return (*layers, Layer("flatten", "flatten"), Layer("linear", "head", channels=num_classes))


def resnet8(num_classes: int) -> tuple[Layer, ...]:
    """MLPerf Tiny's image classifier (Banbury et al. 2021; ResNet v1 of He et al. 2016 with 8 layers).

    A 3x3 convolution of 16 channels; three stacks of two 3x3 convolutions with 16, 32 and 64 channels, the later two
    with stride 2 and a 1x1 convolution on the skip; the mean of the last map (64, H/4, W/4) and one linear layer. Batch
    norm and ReLU as in the reference: none on the skip, ReLU after the addition. Strided 3x3 convolutions pad every
    side by 1 as torch does, where the Keras reference pads the bottom and the right alone.
    """
    layers = [*_conv_norm("stem", 16, 3), Layer("relu", "stem.relu")]
    for stack, channels, stride in (("stack1", 16, 1), ("stack2", 32, 2), ("stack3", 64, 2)):
        before = layers[-1].name
        layers += _conv_norm(f"{stack}.first", channels, 3, stride)
        layers += [Layer("relu", f"{stack}.first.relu"), *_conv_norm(f"{stack}.second", channels, 3)]
        skip = before
        if stride > 1:
            skip = f"{stack}.skip"
            layers.append(Layer("conv", skip, inputs=(before,), channels=channels, stride=stride))
        layers.append(Layer("add", f"{stack}.add", inputs=(f"{stack}.second.norm", skip)))
        layers.append(Layer("relu", f"{stack}.relu"))
    return (*layers, *_mean_head(num_classes))


def mobilenet_tiny(shape: Shape, num_classes: int) -> tuple[Layer, ...]:
    """MobileNet v1 (Howard et al. 2017) at width 0.5 up to its seventh block, for images of `shape` (C, H, W).

    A 3x3 convolution of 16 channels, seven blocks of depthwise 3x3 and pointwise 1x1 convolutions up to 256 channels,
    each with batch norm and ReLU, the mean of the last map and one linear layer. The first convolution has stride 2
    from 48 pixels on; the last of the blocks that widen have it too, as many as bring the last map to about 4x4.
    """
    side, widths = min(shape[1:]), (16, 32, 64, 64, 128, 128, 256, 256)
    wide = side >= 48
    halvings = max(0, round(math.log2(side / 4)) - wide)
    widening = [i for i in range(1, len(widths)) if widths[i] > widths[i - 1]]
    strided = widening[max(0, len(widening) - halvings) :]
    layers = [*_conv_norm("stem", widths[0], 3, 1 + wide), Layer("relu", "stem.relu")]
    for i in range(1, len(widths)):
        depthwise, pointwise = f"block{i}.depthwise", f"block{i}.pointwise"
        layers += _conv_norm(depthwise, widths[i - 1], 3, 1 + (i in strided), widths[i - 1])
        layers += [Layer("relu", f"{depthwise}.relu"), *_conv_norm(pointwise, widths[i], 1)]
        layers.append(Layer("relu", f"{pointwise}.relu"))
    return (*layers, *_mean_head(num_classes))


def mlp(num_classes: int) -> tuple[Layer, ...]:
    """Two hidden layers of 256 and 128 with ReLU on the flattened image."""
    return (
        Layer("flatten", "flatten"),
        Layer("linear", "hidden1", channels=256),
        Layer("relu", "relu1"),
        Layer("linear", "hidden2", channels=128),
        Layer("relu", "relu2"),
        Layer("linear", "head", channels=num_classes),
    )


def _conv_norm(name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Sequence[Layer]:
    """`<name>.conv`, padded so that stride 1 keeps the size, and `<name>.norm`."""
    pads = (kernel // 2,) * 4
    conv = Layer("conv", f"{name}.conv", (), channels, kernel, stride, pads, groups, bias=False)
    return (conv, Layer("batch_norm", f"{name}.norm"))


def _mean_head(num_classes: int) -> Sequence[Layer]:
    return (
        Layer("global_average_pool", "pool"),
        Layer("flatten", "flatten"),
        Layer("linear", "head", channels=num_classes),
    )
