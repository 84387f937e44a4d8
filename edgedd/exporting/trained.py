"""Which parameters a mode trains, read off the forward graph: the same rule for a student and for any other network."""

import re
from collections.abc import Iterable, Mapping

import onnx

from edgedd.errors import SettingError

MODES = ("full", "head", "bias", "last-<k>")
KERNELS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
SHAPING = ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten")


def check_mode(mode: str) -> None:
    """Raises SettingError for a mode that does not exist."""
    if mode not in MODES[:3] and not re.fullmatch(r"last-[1-9]\d{0,3}", mode):
        raise SettingError(f"unknown mode {mode!r}, wanted one of {', '.join(MODES)}")


def trained_names(nodes: Iterable[onnx.NodeProto], values: Mapping[str, str], mode: str) -> tuple[str, ...]:
    """Names of the parameters that `mode` trains; `values` maps a parameter's name to its value in the graph.

    "full" is all of them and "bias" all but the kernels of convolutions and matrix products, that is, biases and norms.
    "last-<k>" is the last k layers, where a layer is a kernel and what is used up to the next one; "head" is the last.
    Raises SettingError for an unknown mode, or when there are fewer than k layers.
    """
    check_mode(mode)
    if mode == "full":
        return tuple(values)
    kernels, layers = _layers(nodes, values)
    if mode == "bias":
        names = tuple(name for name in values if name not in kernels)
        if not names:
            raise SettingError("mode 'bias' would train nothing, since the network has no biases and no norms")
        return names
    count = 1 if mode == "head" else int(mode.removeprefix("last-"))
    if count > max(layers.values(), default=0):
        raise SettingError(f"mode {mode!r} asks for {count} layers, the network has {max(layers.values(), default=0)}")
    return tuple(name for name in values if layers[name] > max(layers.values()) - count)


def _layers(nodes: Iterable[onnx.NodeProto], values: Mapping[str, str]) -> tuple[set[str], dict[str, int]]:
    """Parameters that are kernels, and the number of the layer of each parameter, counted from 1."""
    stands_for = {value: name for name, value in values.items()}
    kernels, layers = set[str](), dict[str, int]()
    for node in nodes:
        if node.op_type in SHAPING and node.input[0] in stands_for:
            stands_for[node.output[0]] = stands_for[node.input[0]]
            continue
        used = [(i, stands_for[value]) for i, value in enumerate(node.input) if value in stands_for]
        new = [name for i, name in used if i in KERNELS.get(node.op_type, ()) and name not in layers]
        kernels.update(new)
        current = max(layers.values(), default=0) + bool(new)
        for _, name in used:
            layers.setdefault(name, max(current, 1))
    return kernels, layers
