"""A node, and torch's word for it: the machinery of the tests of gradient rules."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate

TOLERANCE = 1e-4
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A node and the function of torch that it computes.

    Attributes:
        operator: the node's.
        shapes: of the inputs that are differentiated.
        torch: the function; a tuple when there are several outputs, None for one that the loss does not use.
        constants: the inputs behind them: a tuple of integers, an array, or None for an absent one.
        attributes: the node's.
        offset: added to the random inputs.
        dynamic: whether the first dimension of the first input is.
    """

    operator: str
    shapes: tuple[Shape, ...]
    torch: Callable[..., Any]
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    offset: float = 0.0
    dynamic: bool = True

    def __str__(self) -> str:
        return f"{self.operator}-{'-'.join('x'.join(map(str, s)) for s in self.shapes)}-{self.attributes}"


def constant(b: GraphBuilder, value: Any) -> str:
    if value is None:
        return ""
    return b.integers(*value) if isinstance(value, tuple) else b.constant(value, np.asarray(value).dtype)


def session_of(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gradients_of(case: Case, values: list[np.ndarray], weights: list[np.ndarray | None]) -> list[np.ndarray]:
    """Gradients of the sum of weight * output over the outputs that have a weight, computed by the graph."""
    b = GraphBuilder()
    shapes = [list[int | str](shape) for shape in case.shapes]
    if case.dynamic and case.shapes[0][0] > 1 and len(shapes[0]) == max(map(len, shapes)):
        shapes[0][0] = "n"
    names = [b.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    inputs = (*names, *(constant(b, value) for value in case.constants))
    outputs = b.nodes_of(case.operator, inputs, len(weights), "", case.attributes)
    terms = [b.node("Mul", name, b.constant(w)) for name, w in zip(outputs, weights, strict=True) if w is not None]
    sums = [b.node("ReduceSum", term, keepdims=0) for term in terms]
    b.node("Sum", *sums, name="loss")
    found = differentiate(b, "loss", names)
    model = b.model({found[name]: [None] * len(shape) for name, shape in zip(names, case.shapes, strict=True)})
    assert {node.domain for node in model.graph.node} == {""}
    return session_of(model).run([found[name] for name in names], dict(zip(names, values, strict=True)))


def check(case: Case, seed: int = 0) -> None:
    """The graph's gradients equal autograd's."""
    generator = np.random.default_rng(seed)
    values = [(generator.standard_normal(shape) + case.offset).astype(np.float32) for shape in case.shapes]
    leaves = [torch.tensor(value, requires_grad=True) for value in values]
    result = case.torch(*leaves)
    outputs = result if isinstance(result, tuple) else (result,)
    weights = [None if y is None else generator.standard_normal(tuple(y.shape)).astype(np.float32) for y in outputs]
    sum((y * torch.tensor(w)).sum() for y, w in zip(outputs, weights, strict=True) if y is not None).backward()
    for leaf, gradient in zip(leaves, gradients_of(case, values, weights), strict=True):
        assert leaf.grad is not None
        assert_close(gradient, leaf.grad.numpy())


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max(initial=0) <= TOLERANCE * max(np.abs(wanted).max(initial=0), 1e-3)


def differentiated(operator: str, shape: Shape, *constants: Any, **attributes: Any) -> GraphBuilder:
    """The graph of a lone node called `node` and of its gradient by its one input `x`."""
    b = GraphBuilder()
    b.node(operator, b.input("x", shape), *(constant(b, value) for value in constants), name="node", **attributes)
    b.node("ReduceSum", "node", keepdims=0, name="loss")
    differentiate(b, "loss", ["x"])
    return b
