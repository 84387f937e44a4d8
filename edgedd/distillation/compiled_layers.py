"""Layers whose plain form the compiler turns into slow code on a processor, written so that it does not.

Measured on ConvNet-3 at 32x32 with one core of an AMD EPYC (avx512_bf16), as parts of a feature pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

FEW_PIXELS = 16
FEW_CHANNELS = 4
# By a number. Tensor * number makes a tensor of it, whose tangent of zeros torch (2.14) shapes in Python where nothing
# is compiled: a step of gradient or trajectory matching took 1.2 to 2 times as long (tiny networks, three pairs each).
ByNumber = Callable[[torch.Tensor, float], torch.Tensor]
times: ByNumber = torch.ops.aten.mul.Scalar
plus: ByNumber = torch.ops.aten.add.Scalar


def instance_norm(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Written out, in float32, so that the compiler fuses it with the ReLU and the pool.

    A few pixels may be nearly equal, where differences of moments lose digits: they are centred first. The root is
    written with exp and log because the compiler keeps a result of exp that is used twice, where it would take
    rsqrt again for every pixel. Numbers come in by `times` and `plus`.
    """
    x = x.float()
    pixels = x.shape[2] * x.shape[3]
    mean = times(x.sum((2, 3), keepdim=True), 1 / pixels)
    if pixels < FEW_PIXELS:
        x, mean = x - mean, torch.zeros_like(mean)
    variance = times((x * x).sum((2, 3), keepdim=True), 1 / pixels) - mean * mean
    scale = torch.exp(times(torch.log(plus(variance.clamp_min(0), 1e-5)), -0.5)) * gain[:, None, None]
    return x * scale + (bias[:, None, None] - mean * scale)


def average_pool(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Means of squares of `kernel` pixels; what is left over at the ends does not count.

    Sums over pieces of each side are fused with what comes before, where the pool itself reads a map from memory: a
    forward pass with it took 1.1 (width 128) to 1.2 times (32) as long. With tangents that holds where the compiler is
    to keep less (`Compute.compile`, training): left to itself it computes them over and over, 1.5 times as long.
    """
    if kernel != stride or not _compiled_for_processor(x):
        return F.avg_pool2d(x, kernel, stride)
    rows, columns = x.shape[2] // kernel, x.shape[3] // kernel
    pieces = x[:, :, : rows * kernel, : columns * kernel].reshape(*x.shape[:2], rows, kernel, columns, kernel)
    return pieces.sum((3, 5)) * (1 / kernel**2)


def channels_innermost(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same values, those of convolutions (o, c, h, w) with channels innermost in memory; maps then lie so as well.

    Not compiled, a step of training took 0.8 (ConvNets, ResNet-8) to 0.5 times as long (mobilenet-tiny) on one core;
    compiled, one of mobilenet-tiny 0.8 times, and of a ConvNet as long. By strides, since of one channel torch's own
    `contiguous` does not tell the two layouts apart.
    """
    return [_innermost(p) if p.ndim == 4 and p.device.type == "cpu" else p for p in parameters]


def _innermost(weight: torch.Tensor) -> torch.Tensor:
    _, channels, rows, columns = weight.shape
    strides = (channels * rows * columns, 1, columns * channels, channels)
    return torch.empty_strided(weight.shape, strides, dtype=weight.dtype).copy_(weight)


def two_channels(x: torch.Tensor) -> torch.Tensor:
    """(b, 1, H, W) with a second channel of zeros where it is compiled for a processor.

    Of one channel the compiler cannot tell that channels lie innermost, and all that follows would have them outermost.
    """
    return F.pad(x, (0, 0, 0, 0, 0, 1)) if _compiled_for_processor(x) else x


def convolution_by_constants(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: int
) -> torch.Tensor:
    """A convolution of stride 1; gradients go to its input alone, and are taken once.

    Towards few channels, those of images, the library's own runs at a sixth of its usual rate: it took 2 (width 32)
    to 3 times (128) as long as a matrix product to all positions of the window, whose parts are then added up.
    """
    if not (_compiled_for_processor(x) and x.requires_grad and weight.shape[1] <= FEW_CHANNELS):
        return F.conv2d(x, weight, bias, padding=padding)
    convolved: torch.Tensor = _ByConstants.apply(x, weight, bias, padding)
    return convolved


def _compiled_for_processor(x: torch.Tensor) -> bool:
    return torch.compiler.is_compiling() and x.device.type == "cpu"


class _ByConstants(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: int
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.padding, ctx.sides = padding, x.shape[2:]
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        channels, side = weight.shape[1:3]
        parts = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).to(gradient.dtype) @ gradient.flatten(2)
        parts = parts.reshape(-1, side, side, channels, *gradient.shape[2:])
        last, (rows, columns) = side - 1, ctx.sides
        padded = F.pad(parts, [last - ctx.padding] * 4)
        moved = [
            padded[:, y, x, :, last - y : last - y + rows, last - x : last - x + columns].float()
            for y in range(side)
            for x in range(side)
        ]
        return sum(moved[1:], moved[0]), None, None, None
