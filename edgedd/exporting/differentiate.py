"""Reverse-mode differentiation of a forward ONNX graph: gradient nodes are appended to the graph itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgedd.errors import ExportError
from edgedd.exporting.builder import Dimension, GraphBuilder
from edgedd.exporting.group_normalization import decompose_group_normalization


@dataclass(frozen=True)
class Step:
    """What a gradient rule sees of the node it differentiates.

    Attributes:
        builder: receives the gradient nodes.
        node: the forward node.
        gradients: d(loss)/d(output) by the output's name, of the outputs that the loss depends on.
        shapes: shapes of the forward values; None stands for a dynamic dimension.
        needed: positions of the inputs whose gradient is asked for.
    """

    builder: GraphBuilder
    node: onnx.NodeProto
    gradients: Mapping[str, str]
    shapes: Mapping[str, tuple[Dimension, ...]] = field(repr=False)
    needed: frozenset[int]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes as Python values."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    @property
    def inputs(self) -> list[str]:
        """Names of the node's inputs."""
        return list(self.node.input)

    @property
    def output(self) -> str:
        """Name of the node's first output."""
        return str(self.node.output[0])

    @property
    def gradient(self) -> str:
        """Name of d(loss)/d(first output). Raises ExportError when the loss depends on another output."""
        others = ", ".join(repr(name) for name in self.gradients if name != self.output)
        if others:
            raise self.refusal(f"its output {others} is used, wanted only the first one")
        return self.gradients[self.output]

    def shape(self, name: str) -> tuple[Dimension, ...]:
        """Shape of a forward value. Raises ExportError when inference did not find it."""
        if name not in self.shapes:
            raise self.refusal(f"the shape of {name!r} is unknown, wanted a graph that shape inference can follow")
        return self.shapes[name]

    def fixed(self, name: str, first: int = 0) -> tuple[int, ...]:
        """Dimensions of a forward value from position `first` on. Raises ExportError when one is dynamic."""
        dimensions = self.shape(name)[first:]
        known = tuple(d for d in dimensions if d is not None)
        if len(known) != len(dimensions):
            raise self.refusal(f"{name!r} has the shape {self.shape(name)}, wanted only the batch to be dynamic")
        return known

    def side(self, name: str, axis: int) -> int:
        """Length of one axis of a forward value. Raises ExportError when it is dynamic."""
        length = self.shape(name)[axis]
        if length is None:
            raise self.refusal(f"axis {axis} of {name!r} is dynamic, wanted a fixed length there")
        return length

    def constant(self, position: int) -> np.ndarray | None:
        """The constant at an input, or None when it is absent. Raises ExportError when computed."""
        name = self.inputs[position] if position < len(self.inputs) else ""
        if name and name not in self.builder.constants:
            raise self.refusal(f"its input {name!r} is computed, wanted a constant")
        return self.builder.constants[name] if name else None

    def integers(self, position: int) -> list[int] | None:
        """The constant integers at an input, or None when it is absent. Raises ExportError when computed."""
        found = self.constant(position)
        return None if found is None else [int(value) for value in np.ravel(found)]

    def refusal(self, reason: str) -> ExportError:
        """An error that names the node."""
        return ExportError(f"cannot differentiate node {_name(self.node)!r} ({self.node.op_type}): {reason}")


def differentiate(builder: GraphBuilder, loss: str, wanted: Collection[str]) -> dict[str, str]:
    """Append the gradient of the scalar `loss` -> {value: name of its gradient} for the `wanted` values.

    Only nodes between a wanted value and the loss are differentiated. Raises ExportError for an operator without a
    rule, and for a wanted value that the loss does not depend on.
    """
    from edgedd.exporting.gradients import GRADIENTS

    decompose_group_normalization(builder)
    shapes, forward = builder.shapes(), list(builder.nodes)
    reached = set(wanted)
    for node in forward:
        if reached.intersection(node.input):
            reached.update(node.output)
    parts: dict[str, list[str]] = {loss: [builder.constant(1.0)]}
    for node in reversed(forward):
        touched = [name for name in node.output if name in parts]
        if not touched or not reached.intersection(node.output):
            continue
        if node.op_type not in GRADIENTS or node.domain not in ("", "ai.onnx"):
            known = ", ".join(sorted(GRADIENTS))
            raise ExportError(
                f"no gradient rule for operator {node.op_type} (node {_name(node)!r}), wanted one of {known}"
            )
        needed = frozenset(i for i, name in enumerate(node.input) if name in reached)
        gradients = {name: _total(builder, parts.pop(name)) for name in touched}
        step = Step(builder, node, gradients, shapes, needed)
        for position, gradient in GRADIENTS[node.op_type](step).items():
            parts.setdefault(node.input[position], []).append(gradient)
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise ExportError(f"the loss does not depend on {', '.join(missing)}: leave it out of what is trained")
    return {name: _total(builder, parts[name]) for name in wanted}


def _name(node: onnx.NodeProto) -> str:
    """A node's name is optional; its first output's is not."""
    return str(node.name or node.output[0])


def _total(builder: GraphBuilder, gradients: list[str]) -> str:
    return gradients[0] if len(gradients) == 1 else builder.node("Sum", *gradients)
