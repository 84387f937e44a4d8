"""A small builder of ONNX graphs: nodes in order, small constants stored once, fresh names, inferred shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 9
Dimension = int | None
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class GraphBuilder:
    """Collects nodes of the default domain in topological order; values are known by their names.

    `prefix` begins every fresh name, so that the body of a loop cannot take a name of the graph around it.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._inputs: dict[str, onnx.ValueInfoProto] = {}
        self._stored: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    @property
    def inputs(self) -> list[str]:
        """Names of the graph inputs, in order."""
        return list(self._inputs)

    def fresh(self) -> str:
        """A name that is not taken yet: short, since names are half of a graph's bytes."""
        self._count += 1
        return f"{self.prefix}{self._count:x}"

    def input(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> str:
        """Declare a graph input; strings in `shape` are dynamic dimensions."""
        self._inputs[name] = helper.make_tensor_value_info(name, kind, list(shape))
        return name

    def input_shape(self, name: str) -> tuple[int | str, ...]:
        """Shape of a graph input; strings are dynamic dimensions."""
        sides = self._inputs[name].type.tensor_type.shape.dim
        return tuple(side.dim_value if side.HasField("dim_value") else side.dim_param for side in sides)

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """An initializer; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self.fresh()
            self.constants[self._stored[key]] = array
        return self._stored[key]

    def integers(self, *values: int) -> str:
        """A 1-D int64 initializer: axes, shapes, pads."""
        return self.constant(values, np.int64)

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name; an empty input name means absent."""
        return self.nodes_of(operator, inputs, 1, name, attributes)[0]

    def nodes_of(
        self, operator: str, inputs: Sequence[str], count: int, name: str, attributes: Mapping[str, Any]
    ) -> list[str]:
        """Append a node with `count` outputs; the first is called `name` when that is given."""
        outputs = [self.fresh() for _ in range(count)]
        outputs[0] = name or outputs[0]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def scaled(self, value: str, factor: float) -> str:
        """value * factor, or the value itself when the factor is 1."""
        return value if factor == 1 else self.node("Mul", value, self.constant(factor))

    def model(
        self, outputs: Mapping[str, Sequence[int | str]] | None = None, metadata: Mapping[str, str] | None = None
    ) -> onnx.ModelProto:
        """The model with the named outputs, all float32; unused nodes are not removed."""
        infos = [helper.make_tensor_value_info(n, FLOAT, list(s)) for n, s in (outputs or {}).items()]
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "edgedd", list(self._inputs.values()), infos, constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgedd")
        helper.set_model_props(model, dict(metadata or {}))
        return model

    def shapes(self) -> dict[str, tuple[Dimension, ...]]:
        """Shape of every value that shape inference finds; None stands for a dynamic dimension."""
        model = onnx.shape_inference.infer_shapes(self.model(), strict_mode=True, data_prop=True)
        found = {name: tuple(array.shape) for name, array in self.constants.items()}
        return found | {value.name: _dimensions(value) for value in (*model.graph.input, *model.graph.value_info)}


def _dimensions(value: onnx.ValueInfoProto) -> tuple[Dimension, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
