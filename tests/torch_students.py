"""The students as plain torch modules, written from their papers rather than from our layers.

Submodules are called as our layers are, so that a module's state_dict has the names of `Network.parameters()` and
`Network.buffers()`, next to torch's `num_batches_tracked`.
"""

import re
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

Shape = tuple[int, int, int]


class ConvNetBlock(nn.Module):
    """3x3 convolution, instance norm, ReLU, 2x2 average pool."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(width, eps=1e-5, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(self.norm(self.conv(x)).relu(), 2)


class ConvNorm(nn.Module):
    """Convolution without bias, and batch norm."""

    def __init__(self, channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """A stack of ResNet-8."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, width, 3, stride)
        self.second = ConvNorm(width, width)
        self.skip = nn.Conv2d(channels, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(x).relu()) + self.skip(x)).relu()


class Separable(nn.Module):
    """A block of MobileNet v1."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, 3, stride, channels)
        self.pointwise = ConvNorm(channels, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x).relu()).relu()


def convnet(depth: int, width: int, shape: Shape, num_classes: int) -> nn.Module:
    block = 2**depth
    height, width_of_image = ((side + block - 1) // block * block for side in shape[1:])
    top, left = (height - shape[1]) // 2, (width_of_image - shape[2]) // 2
    pads = (left, width_of_image - shape[2] - left, top, height - shape[1] - top)
    parts: OrderedDict[str, nn.Module] = OrderedDict(pad=nn.ZeroPad2d(pads))
    parts |= {f"block{i}": ConvNetBlock(width if i else shape[0], width) for i in range(depth)}
    features = width * (height // block) * (width_of_image // block)
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "head": nn.Linear(features, num_classes)})


def resnet8(shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=ConvNorm(shape[0], 16),
            relu=nn.ReLU(),
            stack1=Residual(16, 16, 1),
            stack2=Residual(16, 32, 2),
            stack3=Residual(32, 64, 2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(64, num_classes),
        )
    )


MOBILENET_STRIDES = {
    8: "1111121",
    12: "1112121",
    28: "1212121",
    32: "1212121",
    48: "1212121",
    64: "1212121",
    96: "2212121",
}


def mobilenet_tiny(shape: Shape, num_classes: int) -> nn.Module:
    """The strides of the seven blocks are known for the smallest sides that are listed above."""
    widths, strides = (16, 32, 64, 64, 128, 128, 256, 256), [int(s) for s in MOBILENET_STRIDES[min(shape[1:])]]
    stem = ConvNorm(shape[0], 16, stride=2 if min(shape[1:]) >= 48 else 1)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem, relu=nn.ReLU())
    parts |= {f"block{i + 1}": Separable(widths[i], widths[i + 1], strides[i]) for i in range(7)}
    tail = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(256, num_classes)}
    return nn.Sequential(parts | tail)


def mlp(shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden1=nn.Linear(int(np.prod(shape)), 256),
            relu1=nn.ReLU(),
            hidden2=nn.Linear(256, 128),
            relu2=nn.ReLU(),
            head=nn.Linear(128, num_classes),
        )
    )


def torch_student(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """The module a student's name stands for, with torch's own start."""
    if match := re.fullmatch(r"convnet(\d)-w(\d+)", name):
        return convnet(int(match[1]), int(match[2]), shape, num_classes)
    return {"resnet8": resnet8, "mobilenet-tiny": mobilenet_tiny, "mlp": mlp}[name](shape, num_classes)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by our names."""
    return {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}


def counted_multiply_adds(module: nn.Module, shape: Shape) -> int:
    """Products of weights and values in one image's forward pass, counted by hooks while it runs."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.in_channels // layer.groups * int(np.prod(layer.kernel_size))
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total
