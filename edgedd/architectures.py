"""The student families as tuples of layers.

Convolutions in front of an instance or batch norm carry no bias, because the norm takes it out again. The field's
evaluation networks are those of the code of DC, DSA and DM (Zhao et al. 2021). Maps are halved whole: the first
convolution pads images up to a multiple of the halvings, as that code does with 28 pixels.
"""

import math
from collections.abc import Sequence

from edgedd.layers import Kind, Layer, Shape

NORMS: dict[str, Kind | None] = {
    "in": "instance_norm",
    "bn": "batch_norm",
    "gn": "group_norm",
    "ln": "layer_norm",
    "none": None,
}
NORM_GROUPS = 4  # of a group norm, in the published ConvNets
VGG11_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
ALEXNET = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


def convnet(depth: int, width: int, norm: str, shape: Shape, num_classes: int) -> tuple[Layer, ...]:
    """The field's ConvNet (Gidaris and Komodakis 2018; Zhao et al. 2021) on images of `shape` (C, H, W).

    `depth` blocks of 3x3 convolution, norm (a key of NORMS), ReLU and 2x2 average pooling, then one linear layer.
    """
    layers: list[Layer] = []
    for i in range(depth):
        layers += _conv_norm(f"block{i}", width, 3, norm=norm, pads=None if i else _pads(shape, depth, 3))
        layers += [Layer("relu", f"block{i}.relu"), Layer("average_pool", f"block{i}.pool", kernel=2, stride=2)]
    return (*layers, *_head(num_classes))


def alexnet(shape: Shape, num_classes: int) -> tuple[Layer, ...]:
    """The field's AlexNet for small images: five convolutions with ReLU, three 2x2 max pools, one linear layer."""
    layers: list[Layer] = []
    for i, (channels, kernel, pooled) in enumerate(ALEXNET):
        pads = None if i else _pads(shape, 3, kernel)
        layers += _conv_norm(f"block{i}", channels, kernel, norm="none", pads=pads)
        layers.append(Layer("relu", f"block{i}.relu"))
        if pooled:
            layers.append(Layer("max_pool", f"block{i}.pool", kernel=2, stride=2))
    return (*layers, *_head(num_classes))


def vgg11(norm: str, shape: Shape, num_classes: int) -> tuple[Layer, ...]:
    """VGG-11 (Simonyan and Zisserman 2015) with norms and one linear layer; the field's has instance norms."""
    layers: list[Layer] = []
    for i, widths in enumerate(VGG11_STAGES):
        for j, width in enumerate(widths):
            name, first = f"stage{i}.block{j}", not layers
            layers += _conv_norm(name, width, 3, norm=norm, pads=_pads(shape, 5, 3) if first else None)
            layers.append(Layer("relu", f"{name}.relu"))
        layers.append(Layer("max_pool", f"stage{i}.pool", kernel=2, stride=2))
    return (*layers, *_head(num_classes))


def resnet18(norm: str, num_classes: int) -> tuple[Layer, ...]:
    """ResNet-18 (He et al. 2016) for small images: a 3x3 first convolution, no pool before the stacks.

    Four stacks of two blocks with 64, 128, 256 and 512 channels, the later three with stride 2 and a 1x1 convolution
    and a norm on the skip; the mean of the last map and one linear layer. The published code averages 4x4 windows of
    that map, which is its mean at 28 and 32 pixels.
    """
    layers = [*_conv_norm("stem", 64, 3, norm=norm), Layer("relu", "stem.relu")]
    for i, channels in enumerate((64, 128, 256, 512)):
        for j in range(2):
            stride, name, before = 2 if i and not j else 1, f"stack{i}.block{j}", layers[-1].name
            skip = _conv_norm(f"{name}.skip", channels, 1, stride, norm=norm, given=before) if stride > 1 else ()
            layers += _residual(name, before, channels, stride, norm=norm, skip=skip)
    return (*layers, Layer("global_average_pool", "pool"), *_head(num_classes))


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
        shortcut = Layer("conv", f"{stack}.skip", inputs=(before,), channels=channels, stride=stride)
        layers += _residual(stack, before, channels, stride, norm="bn", skip=(shortcut,) if stride > 1 else ())
    return (*layers, Layer("global_average_pool", "pool"), *_head(num_classes))


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
    return (*layers, Layer("global_average_pool", "pool"), *_head(num_classes))


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


def _conv_norm(
    name: str,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    norm: str = "bn",
    pads: tuple[int, int, int, int] | None = None,
    given: str = "",
) -> Sequence[Layer]:
    """`<name>.conv` on the layer before, or on `given`, and `<name>.norm`; without `pads`, stride 1 keeps the size."""
    kind, inputs = NORMS[norm], (given,) if given else ()
    bias = norm not in ("in", "bn")
    around = pads or (kernel // 2,) * 4
    conv = Layer("conv", f"{name}.conv", inputs, channels, kernel, stride, around, groups, bias)
    return (conv, Layer(kind, f"{name}.norm", groups=NORM_GROUPS if norm == "gn" else 1)) if kind else (conv,)


def _residual(
    name: str, before: str, channels: int, stride: int, *, norm: str, skip: Sequence[Layer]
) -> Sequence[Layer]:
    """Two 3x3 convolutions with norms, added to `skip` of `before`, or to that itself; ReLU after each."""
    first = _conv_norm(f"{name}.first", channels, 3, stride, norm=norm)
    second = _conv_norm(f"{name}.second", channels, 3, norm=norm)
    added = Layer("add", f"{name}.add", inputs=(second[-1].name, skip[-1].name if skip else before))
    return (*first, Layer("relu", f"{name}.first.relu"), *second, *skip, added, Layer("relu", f"{name}.relu"))


def _pads(shape: Shape, halvings: int, kernel: int) -> tuple[int, int, int, int]:
    """Of the first convolution: its own, and what brings each side to a multiple of 2^halvings (28 -> 32 at 3)."""
    own, extra = kernel // 2, [-side % 2**halvings for side in shape[1:]]
    return (own + extra[0] // 2, own + extra[1] // 2, own + -(-extra[0] // 2), own + -(-extra[1] // 2))


def _head(num_classes: int) -> Sequence[Layer]:
    return (Layer("flatten", "flatten"), Layer("linear", "head", channels=num_classes))
