"""The students as plain torch modules, written from their papers rather than from our layers.

Submodules are called as our layers are, so that a module's state_dict has the names of `Network.parameters()` and
`Network.buffers()`, next to torch's `num_batches_tracked`.
"""

import re
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Shape = tuple[int, int, int]


NORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "in": lambda c, h, w: nn.InstanceNorm2d(c, eps=1e-5, affine=True),
    "bn": lambda c, h, w: nn.BatchNorm2d(c),
    "gn": lambda c, h, w: nn.GroupNorm(4, c),
    "ln": lambda c, h, w: nn.LayerNorm((c, h, w)),
    "none": lambda c, h, w: nn.Identity(),
}


class ConvNetBlock(nn.Module):
    """3x3 convolution, norm, ReLU, 2x2 average pool; `side` is the map's."""

    def __init__(self, channels: int, width: int, norm: str, side: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=norm not in ("in", "bn"))
        self.norm = NORMS[norm](width, *side)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(self.norm(self.conv(x)).relu(), 2)


class ConvNorm(nn.Module):
    """Convolution without bias, and batch or instance norm."""

    def __init__(
        self, channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1, *, norm: str = "bn"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm = NORMS[norm](width, 0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """A stack of ResNet-8, or with `skip` a block of ResNet-18."""

    def __init__(self, channels: int, width: int, stride: int, norm: str = "bn", skip: nn.Module | None = None) -> None:
        super().__init__()
        self.first = ConvNorm(channels, width, 3, stride, norm=norm)
        self.second = ConvNorm(width, width, norm=norm)
        plain = nn.Conv2d(channels, width, 1, stride) if stride > 1 else nn.Identity()
        self.skip = skip or plain

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


def padded(shape: Shape, block: int) -> tuple[nn.Module, int, int]:
    """Zeros up to multiples of `block`, and the sides with them."""
    height, width = ((side + block - 1) // block * block for side in shape[1:])
    top, left = (height - shape[1]) // 2, (width - shape[2]) // 2
    return nn.ZeroPad2d((left, width - shape[2] - left, top, height - shape[1] - top)), height, width


def convnet(depth: int, width: int, norm: str, shape: Shape, num_classes: int) -> nn.Module:
    pad, rows, columns = padded(shape, 2**depth)
    parts: OrderedDict[str, nn.Module] = OrderedDict(pad=pad)
    for i in range(depth):
        parts[f"block{i}"] = ConvNetBlock(width if i else shape[0], width, norm, (rows >> i, columns >> i))
    features = width * (rows >> depth) * (columns >> depth)
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "head": nn.Linear(features, num_classes)})


class AlexNet(nn.Sequential):
    """As the code of DC, DSA and DM has it."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        pad, rows, columns = padded(shape, 8)

        def block(given: int, made: int, kernel: int) -> nn.Module:
            return nn.Sequential(OrderedDict(conv=nn.Conv2d(given, made, kernel, padding=kernel // 2), relu=nn.ReLU()))

        super().__init__(
            OrderedDict(
                pad=pad,
                block0=block(shape[0], 128, 5),
                pool0=nn.MaxPool2d(2, 2),
                block1=block(128, 192, 5),
                pool1=nn.MaxPool2d(2, 2),
                block2=block(192, 256, 3),
                block3=block(256, 192, 3),
                block4=block(192, 192, 3),
                pool2=nn.MaxPool2d(2, 2),
                flatten=nn.Flatten(),
                head=nn.Linear(192 * (rows // 8) * (columns // 8), num_classes),
            )
        )


def vgg11(norm: str, shape: Shape, num_classes: int) -> nn.Module:
    pad, rows, columns = padded(shape, 32)
    parts: OrderedDict[str, nn.Module] = OrderedDict(pad=pad)
    given = shape[0]
    for i, stage in enumerate([[64], [128], [256, 256], [512, 512], [512, 512]]):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for j, made in enumerate(stage):
            blocks[f"block{j}"] = ConvNorm(given, made, norm=norm)
            blocks[f"relu{j}"] = nn.ReLU()
            given = made
        parts[f"stage{i}"] = nn.Sequential(blocks | {"pool": nn.MaxPool2d(2, 2)})
    head = nn.Linear(512 * (rows // 32) * (columns // 32), num_classes)
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "head": head})


def resnet18(norm: str, shape: Shape, num_classes: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=ConvNorm(shape[0], 64, norm=norm), relu=nn.ReLU())
    given = 64
    for i, made in enumerate((64, 128, 256, 512)):
        skip = ConvNorm(given, made, 1, 2, norm=norm) if i else None
        first = Residual(given, made, 2 if i else 1, norm, skip)
        parts[f"stack{i}"] = nn.Sequential(OrderedDict(block0=first, block1=Residual(made, made, 1, norm)))
        given = made
    tail = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(512, num_classes)}
    return nn.Sequential(parts | tail)


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
    if match := re.fullmatch(r"convnet(\d)-w(\d+)(?:-(\w+))?", name):
        return convnet(int(match[1]), int(match[2]), match[3] or "in", shape, num_classes)
    family, _, norm = name.partition("-")
    if family in ("vgg11", "resnet18"):
        return {"vgg11": vgg11, "resnet18": resnet18}[family](norm or "in", shape, num_classes)
    makers = {"resnet8": resnet8, "mobilenet-tiny": mobilenet_tiny, "mlp": mlp, "alexnet": AlexNet}
    return makers[name](shape, num_classes)


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
