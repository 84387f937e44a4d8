"""Reverse-mode differentiation of a graph, and the rules of arithmetic, activations, products and reductions."""

import numpy as np
import onnxruntime
import pytest
import test_gradients_layers
import test_gradients_shapes
import torch
import torch.nn.functional as F
from gradient_cases import Case, check, differentiated
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedd.errors import ExportError
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate
from edgedd.exporting.gradients import GRADIENTS

X = (3, 4, 7, 6)
ARITHMETIC = [
    Case("Add", ((3, 4, 2), (4, 1)), torch.add),
    Case("Add", (X, (4, 1, 1)), torch.add),
    Case("Sub", ((3, 1, 2), (4, 1)), torch.sub),
    Case("Mul", ((3, 4, 2), (3, 1, 2)), torch.mul),
    Case("Mul", (X, (3, 4, 1, 1)), torch.mul),
    Case("Div", ((4, 2), (3, 4, 2)), torch.div, offset=4.0),
    Case("Sum", ((3, 4, 2), (4, 1), (2,)), lambda a, b, c: a + b + c),
    Case("Sum", (X,), lambda x: x * 1),
    Case("Neg", (X,), torch.neg),
    Case("Sqrt", (X,), torch.sqrt, offset=6.0),
    Case("Pow", (X,), lambda x: x**2, constants=(np.float32(2),)),
    Case("Pow", (X,), lambda x: x**3, constants=(np.int64(3),)),
    Case("Pow", (X,), lambda x: x**-0.5, constants=(np.float32([-0.5]),), offset=6.0),
    Case("Pow", ((3, 4, 2), (4, 1)), torch.pow, offset=5.0),
    Case("Exp", (X,), torch.exp),
    Case("Log", (X,), torch.log, offset=6.0),
    Case("Erf", (X,), torch.erf),
    Case("Identity", (X,), lambda x: x * 1),
    Case("Cast", (X,), lambda x: x * 1, attributes={"to": 1}),
    Case("Dropout", (X,), lambda x: x * 1),
    Case("Dropout", (X,), lambda x: x * 1, constants=(np.float32(0.5), np.bool_(False))),
]
ACTIVATIONS = [
    Case("Relu", (X,), torch.relu),
    Case("LeakyRelu", (X,), F.leaky_relu),
    Case("LeakyRelu", (X,), lambda x: F.leaky_relu(x, 0.3), attributes={"alpha": 0.3}),
    Case("LeakyRelu", (X,), lambda x: F.leaky_relu(x, -0.5), attributes={"alpha": -0.5}),
    Case("Clip", (X,), lambda x: x.clamp(0, 6), constants=(np.float32(0), np.float32(6)), offset=3.0),
    Case("Clip", (X,), lambda x: x.clamp(-0.7, 0.3), constants=(np.float32(-0.7), np.float32(0.3))),
    Case("Clip", (X,), lambda x: x.clamp(max=0.5), constants=(None, np.float32(0.5))),
    Case("Clip", (X,), lambda x: x.clamp(-0.5), constants=(np.float32(-0.5),)),
    Case("Clip", (X,), lambda x: x * 1),
    Case("Sigmoid", (X,), torch.sigmoid),
    Case("HardSigmoid", (X,), lambda x: (0.2 * x + 0.5).clamp(0, 1)),
    Case("HardSigmoid", (X,), F.hardsigmoid, attributes={"alpha": 1 / 6, "beta": 0.5}, offset=2.5),
    Case("HardSigmoid", (X,), lambda x: (0.5 - x).clamp(0, 1), attributes={"alpha": -1.0}),
    Case("HardSwish", (X,), F.hardswish),
    Case("HardSwish", (X,), F.hardswish, offset=3.0),
    Case("HardSwish", (X,), F.hardswish, offset=-3.0),
    Case("Tanh", (X,), torch.tanh),
    Case("Softmax", ((5, 7),), lambda x: F.softmax(x, -1)),
    Case("Softmax", (X,), lambda x: F.softmax(x, 1), attributes={"axis": 1}),
    Case("LogSoftmax", ((5, 7),), lambda x: F.log_softmax(x, -1)),
    Case("LogSoftmax", (X,), lambda x: F.log_softmax(x, 1), attributes={"axis": 1}),
]
PRODUCTS = [
    Case("Gemm", ((3, 4), (4, 5), (5,)), lambda a, b, c: a @ b + c),
    Case(
        "Gemm",
        ((4, 3), (5, 4), (3, 1)),
        lambda a, b, c: 0.5 * a.T @ b.T + 2 * c,
        attributes={"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
        dynamic=False,
    ),
    Case("Gemm", ((4, 3), (4, 5)), lambda a, b: a.T @ b, attributes={"transA": 1}, dynamic=False),
    Case("Gemm", ((3, 4), (5, 4), (1, 5)), lambda a, b, c: a @ b.T + c, attributes={"transB": 1}),
    Case("MatMul", ((3, 4), (4, 5)), torch.matmul),
    Case("MatMul", ((2, 3, 4, 5), (5, 6)), torch.matmul),
    Case("MatMul", ((2, 1, 4, 5), (3, 5, 6)), torch.matmul),
    Case("MatMul", ((4, 5), (3, 5, 6)), torch.matmul),
    Case("MatMul", ((5,), (5,)), torch.matmul, dynamic=False),
    Case("MatMul", ((5,), (5, 6)), torch.matmul),
    Case("MatMul", ((5,), (2, 5, 6)), torch.matmul),
    Case("MatMul", ((3, 5), (5,)), torch.matmul),
    Case("MatMul", ((2, 3, 5), (5,)), torch.matmul),
]
REDUCTIONS = [
    Case("ReduceMean", (X,), lambda x: x.mean((0, 2)), constants=((0, 2),), attributes={"keepdims": 0}),
    Case("ReduceMean", (X,), lambda x: x.mean((-1,), keepdim=True), constants=((-1,),)),
    Case("ReduceMean", (X,), torch.mean, attributes={"keepdims": 0}),
    Case("ReduceMean", (X,), lambda x: x * 1, attributes={"noop_with_empty_axes": 1}),
    Case("ReduceSum", (X,), lambda x: x.sum((1, 3)), constants=((1, 3),), attributes={"keepdims": 0}),
    Case("ReduceSum", (X,), lambda x: x.sum((2,), keepdim=True), constants=((2,),)),
    Case("ReduceSum", (X,), torch.sum, attributes={"keepdims": 0}),
    Case("ReduceMax", (X,), lambda x: x.amax((-1, 1)), constants=((-1, 1),), attributes={"keepdims": 0}),
    Case("ReduceMax", (X,), lambda x: x.amax((0, 2), keepdim=True), constants=((0, 2),)),
    Case("ReduceMax", (X,), torch.max, attributes={"keepdims": 0}),
    Case("ReduceMax", (X,), lambda x: x * 1, attributes={"noop_with_empty_axes": 1}),
]
CASES = ARITHMETIC + ACTIVATIONS + PRODUCTS + REDUCTIONS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_autograd(case: Case) -> None:
    check(case)


def test_every_rule_has_a_case() -> None:
    cases = [*CASES, *test_gradients_layers.CASES, *test_gradients_shapes.CASES]
    assert {case.operator for case in cases} == {*GRADIENTS, "GroupNormalization"}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul), ("Div", torch.div)]),
    st.lists(st.tuples(st.integers(2, 4), st.booleans(), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_arithmetic_of_any_broadcast(operator: tuple, sides: list[tuple[int, bool, bool]], cut: int) -> None:
    left = tuple(1 if single else side for side, single, _ in sides)
    right = tuple(1 if single else side for side, _, single in sides)[min(cut, len(sides) - 1) :]
    check(Case(operator[0], (left, right), operator[1], offset=5.0, dynamic=False))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([("ReduceMean", torch.mean), ("ReduceSum", torch.sum), ("ReduceMax", torch.amax)]),
    st.lists(st.integers(1, 4), min_size=2, max_size=4).flatmap(
        lambda shape: st.tuples(st.just(tuple(shape)), st.sets(st.integers(0, len(shape) - 1), min_size=1))
    ),
    st.booleans(),
    st.booleans(),
)
def test_reductions_over_any_axes(operator: tuple, where: tuple, keep: bool, from_the_end: bool) -> None:
    shape, axes = where
    axes = tuple(axis - len(shape) * from_the_end for axis in sorted(axes))
    function = lambda x: operator[1](x, axes, keepdim=keep)  # noqa: E731
    check(Case(operator[0], (shape,), function, constants=(axes,), attributes={"keepdims": int(keep)}))


@pytest.mark.parametrize("operator", ["ReduceMax", "GlobalMaxPool"])
def test_equally_large_elements_share_the_gradient(operator: str) -> None:
    b = differentiated(operator, (1, 1, 2, 2), *([(2, 3)] if operator == "ReduceMax" else []))
    gradient = b.nodes[-1].output[0]
    session = onnxruntime.InferenceSession(b.model({gradient: [1, 1, 2, 2]}).SerializeToString())
    found = session.run([gradient], {"x": np.float32([[[[3, 1], [2, 3]]]])})[0]
    np.testing.assert_array_equal(found, [[[[0.5, 0], [0, 0.5]]]])


def test_a_value_used_twice_sums_its_gradients() -> None:
    b = GraphBuilder()
    x = b.input("x", (3,))
    b.node("ReduceSum", b.node("Mul", x, x), keepdims=0, name="loss")
    found = differentiate(b, "loss", ["x"])["x"]
    session = onnxruntime.InferenceSession(b.model({found: [3]}).SerializeToString())
    np.testing.assert_array_equal(session.run([found], {"x": np.float32([1, -2, 3])})[0], [2, -4, 6])


def test_only_what_is_needed_is_differentiated() -> None:
    b = GraphBuilder()
    x, w, v = b.input("x", ("n", 4)), b.input("w", (4, 4)), b.input("v", (4, 1))
    b.node("ReduceSum", b.node("MatMul", b.node("Sin", b.node("MatMul", x, w)), v), keepdims=0, name="loss")
    before = len(b.nodes)
    differentiate(b, "loss", ["v"])
    assert not {"Sin", "Cos"} & {node.op_type for node in b.nodes[before:]}


def test_an_operator_without_a_rule_is_named() -> None:
    b = GraphBuilder()
    b.node("ReduceSum", b.node("Sin", b.input("x", (3,)), name="wave"), keepdims=0, name="loss")
    with pytest.raises(ExportError, match=r"Sin \(node 'wave'\), wanted one of Add, AveragePool"):
        differentiate(b, "loss", ["x"])


def test_a_value_apart_from_the_loss_is_named() -> None:
    b = GraphBuilder()
    b.input("apart", (3,))
    b.node("ReduceSum", b.input("x", (3,)), keepdims=0, name="loss")
    with pytest.raises(ExportError, match="does not depend on apart"):
        differentiate(b, "loss", ["apart", "x"])


def test_a_second_output_that_is_used_is_refused() -> None:
    b = GraphBuilder()
    outputs = b.nodes_of("LayerNormalization", (b.input("x", (3, 4)), b.input("s", (4,))), 2, "norm", {})
    sums = [b.node("ReduceSum", name, keepdims=0) for name in outputs]
    b.node("Add", *sums, name="loss")
    with pytest.raises(ExportError, match=r"'norm' \(LayerNormalization\): its output '.+' is used"):
        differentiate(b, "loss", ["x"])


REFUSED = [
    ("Dropout", (3,), (np.float32(0.5), np.bool_(True)), {}, "training_mode is set, wanted its inference form"),
    ("Cast", (3,), (), {"to": 11}, "it casts away from float32"),
]


@pytest.mark.parametrize(("operator", "shape", "constants", "attributes", "reason"), REFUSED)
def test_refusals(operator: str, shape: tuple, constants: tuple, attributes: dict, reason: str) -> None:
    with pytest.raises(ExportError, match=rf"cannot differentiate node 'node' \({operator}\): {reason}"):
        differentiated(operator, shape, *constants, **attributes)


def test_a_computed_bound_is_refused() -> None:
    b = GraphBuilder()
    b.node("Clip", b.input("x", (3,)), b.input("low", ()), name="node")
    b.node("ReduceSum", "node", keepdims=0, name="loss")
    with pytest.raises(ExportError, match=r"'node' \(Clip\): its input 'low' is computed, wanted a constant"):
        differentiate(b, "loss", ["x"])
