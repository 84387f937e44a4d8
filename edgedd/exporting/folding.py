"""What an exporter leaves to be computed from constants alone, computed once: shapes, casts, zero biases."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgedd.errors import ExportError
from edgedd.exporting.builder import IR_VERSION, OPSET


def is_weight(array: np.ndarray) -> bool:
    """Whether a stored tensor may be something to train: float32 with more than one number."""
    return array.dtype == np.float32 and array.size > 1


def settle_reshapes(model: onnx.ModelProto, images: str, shape: tuple[int, int, int]) -> None:
    """Make the target of every Reshape a constant, in place: the model is run with two and with three images.

    What differs between the two is the batch. Raises ExportError for a model that does not run, or where more than the
    first dimension depends on the batch.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    computed = [n for n in model.graph.node if n.op_type == "Reshape" and n.input[1] not in stored]
    if not computed:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    wanted = sorted({name for node in computed for name in (node.input[0], node.output[0])} - stored)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    runs = []
    for batch in (2, 3):
        try:
            found = ReferenceEvaluator(probe).run(None, {images: np.zeros((batch, *shape), np.float32)})
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"the model does not run on {batch} images ({reason}): check its input's shape"
            ) from error
        runs.append(dict(zip(wanted, found, strict=True)))
    for node in computed:
        before = [np.shape(run.get(node.input[0], ())) for run in runs]
        target = _target(node, [np.shape(run[node.output[0]]) for run in runs], [s[:1] for s in before] == [(2,), (3,)])
        model.graph.initializer.append(onnx.numpy_helper.from_array(target, f"{node.output[0]}.shape"))
        node.input[1] = f"{node.output[0]}.shape"
        del node.attribute[:]


def _target(node: onnx.NodeProto, after: list[tuple[int, ...]], batch_first: bool) -> np.ndarray:
    """The result's shape for any batch: 0 takes over the first dimension, -1 is what is left."""
    two, three = after
    target = np.array(two, np.int64)
    if two != three:
        if two[1:] != three[1:]:
            name = node.name or node.output[0]
            raise ExportError(f"node {name!r} (Reshape) mixes the batch into other dimensions: keep it the first one")
        target[0] = 0 if batch_first and two[0] == 2 else -1
    return target


def without_unused(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def fold_constants(
    nodes: list[onnx.NodeProto], stored: Mapping[str, np.ndarray]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Nodes that remain; what may be trained; and all other constants, with the results of the nodes left out.

    CastLike, which torch writes between float32 values, becomes Identity where its input remains. Raises ExportError
    naming a node whose constants cannot be computed with.
    """
    values, weights, left = dict(stored), {name for name, array in stored.items() if is_weight(array)}, []
    for node in nodes:
        if node.op_type == "Constant":
            values[node.output[0]] = _constant(node)
            weights.update(name for name in node.output if is_weight(values[name]))
        elif node.op_type == "Shape" and node.input[0] in values:
            values[node.output[0]] = _computed(node, values)
        elif node.op_type == "CastLike" and node.input[0] in set(values) - weights:
            like = values.get(node.input[1], np.float32(0))
            values[node.output[0]] = values[node.input[0]].astype(like.dtype)
        elif node.op_type == "CastLike":
            left.append(helper.make_node("Identity", node.input[:1], node.output, node.name))
        elif node.input and set(node.input) <= set(values) - weights | {""} and len(node.output) == 1:
            values[node.output[0]] = _computed(node, values)
        else:
            left.append(node)
    trainable = {name: values.pop(name) for name in weights}
    return left, trainable, values


def _constant(node: onnx.NodeProto) -> np.ndarray:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return np.asarray(onnx.numpy_helper.to_array(value))
    return np.asarray(value, np.float32 if attribute.name.startswith("value_float") else np.int64)


def _computed(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> np.ndarray:
    given = {name: values[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    graph = helper.make_graph([node], "folded", inputs, [onnx.ValueInfoProto(name=node.output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    try:
        results: Any = ReferenceEvaluator(model).run(None, given)
        return np.asarray(results[0])
    except Exception as error:
        name, reason = node.name or node.output[0], str(error).splitlines()[0]
        raise ExportError(f"node {name!r} ({node.op_type}) cannot be computed from its constants ({reason})") from error
