"""Student networks by name: what their parameters are called, how large they are, how they start.

`convnet<depth>-w<width>` is the field's ConvNet (Gidaris and Komodakis 2018; Zhao et al. 2021): depth blocks of 3x3
convolution, instance normalisation (affine, eps 1e-5), ReLU and 2x2 average pooling, then one linear layer. Two
details: the first convolution pads each side up to a multiple of 2^depth (28 -> 32 at depth 3, as the field does), and
convolutions carry no bias, because the normalisation behind them takes it out again. The torch version lives in
edgedd.distillation.networks, the ONNX version in edgedd.exporting.networks; both read the shapes here.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from edgedd.errors import SettingError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its shape and start; `uniform` draws from [-bound, bound], others are constant."""

    shape: Shape
    start: str  # "uniform", "ones" or "zeros"
    bound: float = 0.0


@dataclass(frozen=True)
class ConvNet:
    """depth blocks of `width` channels on images of `shape` (C, H, W), for `num_classes` classes."""

    depth: int
    width: int
    shape: tuple[int, int, int]
    num_classes: int

    @property
    def padded(self) -> tuple[int, int]:
        """Sides of the first convolution's output: multiples of 2^depth."""
        block = 2**self.depth
        return (-(-self.shape[1] // block) * block, -(-self.shape[2] // block) * block)

    @property
    def first_padding(self) -> tuple[int, int, int, int]:
        """Padding of the first convolution: top, left, bottom, right."""
        extra = [size - side for size, side in zip(self.padded, self.shape[1:], strict=True)]
        return (1 + extra[0] // 2, 1 + extra[1] // 2, 1 + extra[0] - extra[0] // 2, 1 + extra[1] - extra[1] // 2)

    @property
    def feature_size(self) -> int:
        """Length of the flattened last feature map."""
        return self.width * math.prod(side >> self.depth for side in self.padded)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass, convolutions and head."""
        total, channels, (height, width) = 0, self.shape[0], self.padded
        for i in range(self.depth):
            total += (height >> i) * (width >> i) * 9 * channels * self.width
            channels = self.width
        return total + self.feature_size * self.num_classes

    def parameters(self) -> dict[str, ParameterSpec]:
        """Parameters in order: block<i>.conv.weight, block<i>.norm.weight, block<i>.norm.bias, head.weight, head.bias.

        Weights start as torch's defaults do: uniform within 1/sqrt(fan in).
        """
        specs, channels = {}, self.shape[0]
        for i in range(self.depth):
            bound = 1 / math.sqrt(9 * channels)
            specs[f"block{i}.conv.weight"] = ParameterSpec((self.width, channels, 3, 3), "uniform", bound)
            specs[f"block{i}.norm.weight"] = ParameterSpec((self.width,), "ones")
            specs[f"block{i}.norm.bias"] = ParameterSpec((self.width,), "zeros")
            channels = self.width
        bound = 1 / math.sqrt(self.feature_size)
        specs["head.weight"] = ParameterSpec((self.num_classes, self.feature_size), "uniform", bound)
        specs["head.bias"] = ParameterSpec((self.num_classes,), "uniform", bound)
        return specs


def student(name: str, shape: tuple[int, int, int], num_classes: int) -> ConvNet:
    """The network a name stands for. Raises SettingError for an unknown name or images too small for its depth."""
    match = re.fullmatch(r"convnet(\d)-w(\d{1,4})", name)
    if not match or not (1 <= int(match[1]) <= 6 and 1 <= int(match[2]) <= 1024):
        raise SettingError(f"unknown student {name!r}, wanted convnet<depth>-w<width>, such as convnet3-w64")
    depth, width = int(match[1]), int(match[2])
    if min(shape[1:]) < 2**depth:
        raise SettingError(f"student {name} halves images {depth} times, too often for {shape[1]}x{shape[2]} pixels")
    return ConvNet(depth, width, shape, num_classes)


def default_student(shape: tuple[int, int, int], width: int = 64) -> str:
    """The ConvNet whose last map is about 4x4: depth 2 at 8 pixels, 3 at 28 and 32, 4 at 64."""
    depth = max(2, round(math.log2(min(shape[1:]) / 4)))
    return f"convnet{depth}-w{width}"


def initial_parameters(specs: dict[str, ParameterSpec], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Fresh float32 parameters, drawn in the order of `specs`: equal generators give equal networks anywhere."""
    starts = {"ones": np.ones, "zeros": np.zeros}
    return {
        name: generator.uniform(-s.bound, s.bound, s.shape).astype(np.float32)
        if s.start == "uniform"
        else starts[s.start](s.shape, np.float32)
        for name, s in specs.items()
    }
