"""Student networks by name: their layers, what their parameters are called, how large they are.

The families are described in edgedd.architectures as data. The torch version of a network is in
edgedd.distillation.networks, the ONNX version in edgedd.exporting.networks; both walk the layers.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgedd import architectures
from edgedd.errors import SettingError
from edgedd.layers import Layer, Shape
from edgedd.parameters import ParameterSpec

WANTED = (
    "convnet<depth>-w<width>[-in|-bn|-gn|-ln|-none] (such as convnet3-w64), resnet8, mobilenet-tiny, mlp, alexnet, "
    "vgg11, vgg11-bn, resnet18-in or resnet18-bn"
)
LEAST_SIDES = {"vgg11": (16, 5), "vgg11-bn": (16, 5), "resnet18-in": (9, 3), "resnet18-bn": (9, 3)}


@dataclass(frozen=True)
class Network:
    """Layers on images of `shape` (C, H, W); the last one is linear and gives the logits of `num_classes` classes."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    layers: tuple[Layer, ...]

    @property
    def feature_size(self) -> int:
        """Length of what the last linear layer gets."""
        return math.prod(list(self._shapes())[-1][1])

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass, convolutions and linear layers."""
        weighted = (row for row in self._shapes() if row[0].kind in ("conv", "linear"))
        return sum(math.prod(layer.weight(given)) * math.prod(made[1:]) for layer, given, made in weighted)

    def parameters(self) -> dict[str, ParameterSpec]:
        """`<layer>.weight` and `<layer>.bias` in the order of the layers.

        Convolutions and linear layers start as torch's defaults do: uniform within 1/sqrt(fan in).
        """
        specs = {}
        for layer, given, _ in self._shapes():
            if layer.kind in ("conv", "linear"):
                weight = layer.weight(given)
                bound = 1 / math.sqrt(math.prod(weight[1:]))
                of = {"weight": ParameterSpec(weight, "uniform", bound)}
                of["bias"] = ParameterSpec(weight[:1], "uniform", bound)
            else:
                gain = layer.gain(given)
                of = {"weight": ParameterSpec(gain, "ones"), "bias": ParameterSpec(gain, "zeros")}
            specs.update({f"{layer.name}.{part}": of[part] for part in layer.parameters})
        return specs

    def buffers(self) -> dict[str, ParameterSpec]:
        """`<layer>.running_mean` and `<layer>.running_var` of batch norms, in the order of the layers."""
        starts = {"running_mean": "zeros", "running_var": "ones"}
        return {
            f"{layer.name}.{part}": ParameterSpec(given[:1], starts[part])
            for layer, given, _ in self._shapes()
            for part in layer.buffers
        }

    def _shapes(self) -> Iterator[tuple[Layer, Shape, Shape]]:
        """Each layer with the shapes of its first input and of its output, without the batch."""
        made: dict[str, Shape] = {}
        shape: Shape = self.shape
        for layer in self.layers:
            given = made[layer.inputs[0]] if layer.inputs else shape
            shape = made[layer.name] = layer.output(given)
            yield layer, given, shape


def student(name: str, shape: tuple[int, int, int], num_classes: int) -> Network:
    """The network a name stands for, on images of `shape` (C, H, W).

    Raises SettingError for an unknown name or images too small for its depth.
    """
    return Network(name, shape, num_classes, _layers(name, shape, num_classes))


def default_student(shape: tuple[int, int, int], width: int = 64) -> str:
    """The ConvNet whose last map is about 4x4: depth 2 at 8 pixels, 3 at 28 and 32, 4 at 64."""
    depth = max(2, round(math.log2(min(shape[1:]) / 4)))
    return f"convnet{depth}-w{width}"


def _layers(name: str, shape: tuple[int, int, int], num_classes: int) -> tuple[Layer, ...]:
    least, halvings = LEAST_SIDES.get(name, (0, 0))
    if min(shape[1:]) < least:
        raise _too_small(name, halvings, shape)
    families: dict[str, Callable[[], tuple[Layer, ...]]] = {
        "resnet8": lambda: architectures.resnet8(num_classes),
        "mobilenet-tiny": lambda: architectures.mobilenet_tiny(shape, num_classes),
        "mlp": lambda: architectures.mlp(num_classes),
        "alexnet": lambda: architectures.alexnet(shape, num_classes),
        "vgg11": lambda: architectures.vgg11("in", shape, num_classes),
        "vgg11-bn": lambda: architectures.vgg11("bn", shape, num_classes),
        "resnet18-in": lambda: architectures.resnet18("in", num_classes),
        "resnet18-bn": lambda: architectures.resnet18("bn", num_classes),
    }
    return families[name]() if name in families else _convnet(name, shape, num_classes)


def _convnet(name: str, shape: tuple[int, int, int], num_classes: int) -> tuple[Layer, ...]:
    match = re.fullmatch(rf"convnet(\d)-w(\d{{1,4}})(?:-({'|'.join(architectures.NORMS)}))?", name)
    if not match or not (1 <= int(match[1]) <= 6 and 1 <= int(match[2]) <= 1024):
        raise SettingError(f"unknown student {name!r}, wanted {WANTED}")
    depth, width, norm = int(match[1]), int(match[2]), match[3] or "in"
    if min(shape[1:]) < 2**depth:
        raise _too_small(name, depth, shape)
    if norm == "gn" and width % architectures.NORM_GROUPS:
        groups = architectures.NORM_GROUPS
        wanted = f"wanted a width that is a multiple of {groups}"
        raise SettingError(f"student {name}: a group norm has {groups} groups, {wanted}")
    return architectures.convnet(depth, width, norm, shape, num_classes)


def _too_small(name: str, halvings: int, shape: tuple[int, int, int]) -> SettingError:
    return SettingError(f"student {name} halves images {halvings} times, too often for {shape[1]}x{shape[2]} pixels")
