"""Student networks as forward ONNX graphs: the layers of edgedd.students, a node each."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.forward import Forward
from edgedd.layers import Layer
from edgedd.students import Network

OPERATORS = {
    "conv": "Conv",
    "instance_norm": "InstanceNormalization",
    "batch_norm": "BatchNormalization",
    "layer_norm": "LayerNormalization",
    "relu": "Relu",
    "average_pool": "AveragePool",
    "max_pool": "MaxPool",
    "global_average_pool": "GlobalAveragePool",
    "add": "Add",
    "flatten": "Flatten",
    "linear": "Gemm",
}


def of_student(network: Network) -> Forward:
    """The student as the exporter sees it; batch norms are appended in the form that predicts."""
    return Forward(
        name=network.name,
        shape=network.shape,
        num_classes=network.num_classes,
        parameters=network.parameters(),
        buffers=network.buffers(),
        append=partial(_append, network),
    )


def _append(network: Network, builder: GraphBuilder, values: Mapping[str, str], images: str) -> str:
    """Append every layer: images (b, C, H, W), normalised -> the name of the logits (b, K)."""
    made: dict[str, str] = {}
    value = images
    for layer in network.layers:
        inputs = [made[name] for name in layer.inputs] or [value]
        own = [values[f"{layer.name}.{part}"] for part in (*layer.parameters, *layer.buffers)]
        name = "logits" if layer is network.layers[-1] else ""
        if layer.kind == "group_norm":
            value = _group_norm(builder, layer.groups, *inputs, *own)
        else:
            value = builder.node(OPERATORS[layer.kind], *inputs, *own, name=name, **_attributes(layer))
        made[layer.name] = value
    return value


def _group_norm(b: GraphBuilder, groups: int, x: str, weight: str, bias: str) -> str:
    """Groups as the channels of an instance norm; ONNX's own GroupNormalization scales groups in opset 18."""
    ones, zeros = (b.constant([fill] * groups) for fill in (1.0, 0.0))
    rows = b.node("InstanceNormalization", b.node("Reshape", x, b.integers(0, groups, -1)), ones, zeros, epsilon=1e-5)
    gain, offset = (b.node("Reshape", values, b.integers(-1, 1, 1)) for values in (weight, bias))
    return b.node("Add", b.node("Mul", b.node("Reshape", rows, b.node("Shape", x)), gain), offset)


def _attributes(layer: Layer) -> dict[str, Any]:
    window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
    attributes: dict[str, dict[str, Any]] = {
        "conv": window | {"pads": layer.pads, "group": layer.groups},
        "instance_norm": {"epsilon": 1e-5},
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.9},
        "layer_norm": {"axis": 1, "epsilon": 1e-5},
        "average_pool": window,
        "max_pool": window,
        "linear": {"transB": 1},
    }
    return attributes.get(layer.kind, {})
