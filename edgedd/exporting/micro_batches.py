"""A loop inside the graph over micro-batches: gradients add up, running statistics are handed on.

Letters: k rows of the set and m images from outside make b = k + m; u images a micro-batch.
"""

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedd.exporting.builder import FLOAT, INT64, GraphBuilder
from edgedd.exporting.decode import decode
from edgedd.exporting.gradient_graph import PREFIX, GradientGraph
from edgedd.parameterization import Parameterization


def over_micro_batches(
    outer: GraphBuilder, gradient: GradientGraph, parameterization: Parameterization, factors: dict[str, str]
) -> dict[str, str]:
    """Append a Loop to `outer`, which has the inputs of the training graph -> what has been added up, by name.

    That is `next.sum.<name>` of each trained parameter, on top of the input `sum.<name>`, and the last value of each
    buffer that changes; the value `loss` is appended as well. Nodes that do not depend on the micro-batch are computed
    once, in front of the loop.
    """
    trips = _trips(outer)
    repeated = _hoist(outer, gradient)
    body = GraphBuilder(f"{PREFIX}l.")
    _prepare(body, gradient, parameterization, factors)
    body.nodes.extend(repeated)
    added = {"loss": gradient.loss} | {f"sum.{name}": value for name, value in gradient.gradients.items()}
    carried = {f"{PREFIX}{name}": body.node("Add", f"{PREFIX}{name}", value) for name, value in added.items()}
    kept = {f"b.{name}": value for name, value in gradient.next_buffers.items()}
    graph = _body_graph(body, gradient, carried | {f"{PREFIX}{name}": value for name, value in kept.items()})
    starts = [outer.constant(0.0) if name == "loss" else name for name in (*added, *kept)]
    results = [name if name == "loss" else f"next.{name}" for name in (*added, *kept)]
    outer.nodes.append(helper.make_node("Loop", [trips, "", *starts], results, name="micro_batches", body=graph))
    return {
        name.split(".", 1)[1]: result for name, result in zip((*added, *kept), results, strict=True) if name != "loss"
    }


def _trips(b: GraphBuilder) -> str:
    """The number of micro-batches, (k + m) / u rounded up; and the value `u.share`, 1 / `batch`."""
    b.node("Reciprocal", "batch", name=f"{PREFIX}share")
    outside = b.node("Gather", b.node("Shape", "images"), b.constant(0, "int64"))
    count = b.node("Add", b.node("Size", "rows"), outside)
    most = b.node("Sub", b.node("Add", count, "micro_batch"), b.constant(1, "int64"))
    return b.node("Div", most, "micro_batch")


def _hoist(outer: GraphBuilder, gradient: GradientGraph) -> list[onnx.NodeProto]:
    """Move what depends on parameters and constants alone to `outer` -> the other nodes."""
    inner = gradient.builder
    fixed = (
        {name for name in inner.inputs if not name.startswith(PREFIX)} | set(inner.constants) | {"", f"{PREFIX}share"}
    )
    repeated = []
    for node in inner.nodes:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
            outer.nodes.append(node)
            outer.constants.update({n: inner.constants[n] for n in node.input if n in inner.constants})
        else:
            repeated.append(node)
    return repeated


def _prepare(
    b: GraphBuilder, gradient: GradientGraph, parameterization: Parameterization, factors: dict[str, str]
) -> None:
    """Rows, then outside images, of micro-batch number `u.trip`: `u.images`, `u.labels` and `u.augment.*`."""
    zero, axis = b.integers(0), b.integers(0)
    first = b.node("Reshape", b.node("Mul", f"{PREFIX}trip", "micro_batch"), b.integers(1))
    last = b.node("Add", first, "micro_batch")
    stored = b.node("Shape", "rows")
    outside = [b.node("Max", b.node("Sub", place, stored), zero) for place in (first, last)]
    rows = b.node("Slice", "rows", first, last, axis)
    images = decode(b, parameterization, factors, rows)
    b.node("Concat", images, b.node("Slice", "images", *outside, axis), axis=0, name=f"{PREFIX}images")
    labels = b.node("Gather", "labels", rows, axis=0)
    b.node("Concat", labels, b.node("Slice", "soft_labels", *outside, axis), axis=0, name=f"{PREFIX}labels")
    for name in gradient.builder.inputs:
        if name.startswith(f"{PREFIX}augment."):
            b.node("Slice", name.removeprefix(PREFIX), first, last, axis, name=name)


def _body_graph(body: GraphBuilder, gradient: GradientGraph, carried: Mapping[str, str]) -> onnx.GraphProto:
    """The body of the Loop; `carried` maps values at the start of a turn to the values that take their place."""
    body.node("Identity", f"{PREFIX}condition", name=f"{PREFIX}go_on")
    used = {name for node in body.nodes for name in node.input}
    constants = body.constants | {n: a for n, a in gradient.builder.constants.items() if n in used}
    scalars = ((f"{PREFIX}trip", INT64), (f"{PREFIX}condition", TensorProto.BOOL))
    formal = [helper.make_tensor_value_info(name, kind, []) for name, kind in scalars]
    formal += [helper.make_tensor_value_info(name, FLOAT, None) for name in carried]
    given = [helper.make_tensor_value_info(f"{PREFIX}go_on", TensorProto.BOOL, [])]
    given += [helper.make_tensor_value_info(name, FLOAT, None) for name in carried.values()]
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    return helper.make_graph(body.nodes, "micro_batch", formal, given, stored)
