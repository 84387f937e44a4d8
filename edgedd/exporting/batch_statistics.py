"""Batch normalisation that uses and updates the statistics of the batch, from operators every onnxruntime has.

The stock CPU wheel refuses BatchNormalization with training_mode=1. Its inference form takes any mean and variance, so
it is given those of the batch, and marked: its gradient then goes through the statistics, which need no rule.
"""

import onnx
from onnx import helper

from edgedd.errors import ExportError
from edgedd.exporting.builder import FLOAT, GraphBuilder
from edgedd.exporting.group_normalization import decompose_group_normalization
from edgedd.exporting.normalization import BATCH_STATISTICS


def use_batch_statistics(builder: GraphBuilder) -> dict[str, str]:
    """Let every BatchNormalization use the batch -> {running mean or variance: name of its value after this batch}.

    next = momentum running + (1 - momentum) batch, with the node's own momentum (0.9) and the unbiased variance, as in
    torch, whose momentum is 1 - 0.9. A single element a channel has no unbiased variance and counts as 0.
    Raises ExportError when an input has no known rank.
    """
    decompose_group_normalization(builder)
    shapes, forward = builder.shapes(), list(builder.nodes)
    builder.nodes.clear()
    updated: dict[str, str] = {}
    for node in forward:
        if node.op_type != "BatchNormalization":
            builder.nodes.append(node)
            continue
        rank = len(shapes.get(node.input[0], ()))
        if rank < 2:
            reason = f"the rank of {node.input[0]!r} is unknown, wanted a graph that shape inference can follow"
            raise ExportError(f"no batch statistics for node {node.output[0]!r} (BatchNormalization): {reason}")
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        batch = _statistics(builder, node.input[0], rank)
        _normalize(builder, node, batch, attributes.get("epsilon", 1e-5))
        unbiased = builder.node("Mul", batch[1], _correction(builder, node.input[0], batch[1]))
        for running, value in zip(node.input[3:], (batch[0], unbiased), strict=True):
            momentum = attributes.get("momentum", 0.9)
            updated[running] = _moved(builder, updated.get(running, running), value, momentum)
    return updated


def _statistics(b: GraphBuilder, x: str, rank: int) -> tuple[str, str]:
    """Mean and biased variance of each channel, (C,)."""
    axes, flat = b.integers(0, *range(2, rank)), b.integers(-1)
    mean = b.node("ReduceMean", x, axes, keepdims=1)
    centred = b.node("Sub", x, mean)
    variance = b.node("ReduceMean", b.node("Mul", centred, centred), axes, keepdims=0)
    return b.node("Reshape", mean, flat), variance


def _normalize(b: GraphBuilder, node: onnx.NodeProto, batch: tuple[str, str], epsilon: float) -> None:
    inputs = [*node.input[:3], *batch]
    b.nodes.append(
        helper.make_node(
            node.op_type, inputs, [node.output[0]], node.name, doc_string=BATCH_STATISTICS, epsilon=epsilon
        )
    )


def _correction(b: GraphBuilder, x: str, variance: str) -> str:
    """n / (n - 1) for n elements a channel."""
    count = b.node("Cast", b.node("Div", b.node("Size", x), b.node("Size", variance)), to=FLOAT)
    return b.node("Div", count, b.node("Max", b.node("Sub", count, b.constant(1.0)), b.constant(1.0)))


def _moved(b: GraphBuilder, running: str, value: str, momentum: float) -> str:
    return b.node("Add", b.scaled(running, momentum), b.scaled(value, 1 - momentum))
