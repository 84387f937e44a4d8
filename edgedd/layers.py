"""Layers as data: what a student is a tuple of (the families are in edgedd.architectures)."""

import math
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Kind = Literal[
    "conv",
    "instance_norm",
    "batch_norm",
    "group_norm",
    "layer_norm",
    "relu",
    "average_pool",
    "max_pool",
    "global_average_pool",
    "add",
    "flatten",
    "linear",
]
PARAMETERS: dict[str, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "instance_norm": ("weight", "bias"),
    "batch_norm": ("weight", "bias"),
    "group_norm": ("weight", "bias"),
    "layer_norm": ("weight", "bias"),
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
        kernel: side of the square window of a convolution or a pool.
        stride: of that window.
        pads: zeros around a convolution's input: top, left, bottom, right.
        groups: of the channels of a convolution or a group norm.
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

    def gain(self, shape: Shape) -> Shape:
        """Shape of a norm's weight and of its bias: an element's own in a layer norm, a channel's in the others."""
        return shape if self.kind == "layer_norm" else shape[:1]

    def output(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`, both without the batch."""
        if self.kind == "linear":
            return (self.channels,)
        if self.kind == "flatten":
            return (math.prod(shape),)
        if self.kind == "global_average_pool":
            return (shape[0], 1, 1)
        if self.kind not in ("conv", "average_pool", "max_pool"):
            return shape
        top, left, bottom, right = self.pads
        height, width = (
            (side + extra - self.kernel) // self.stride + 1
            for side, extra in zip(shape[1:], (top + bottom, left + right), strict=True)
        )
        return (self.channels or shape[0], height, width)
