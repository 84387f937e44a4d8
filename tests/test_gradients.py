"""Every gradient rule against torch's autograd."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedd.errors import ExportError
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate
from edgedd.exporting.gradients import GRADIENTS

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A node, shapes of its differentiable inputs, constant inputs behind them, and torch's word for it."""

    operator: str
    shapes: tuple[tuple[int, ...], ...]
    torch: Callable[..., torch.Tensor]
    constants: tuple[tuple[int, ...], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    offset: float = 0.0

    def __str__(self) -> str:
        return f"{self.operator}-{'-'.join('x'.join(map(str, s)) for s in self.shapes)}-{self.attributes}"


def conv(*shapes: tuple[int, ...], pads: int = 0, stride: int = 1, dilation: int = 1, group: int = 1) -> Case:
    rank = len(shapes[0]) - 2
    attributes = {
        "pads": [pads] * 2 * rank,
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
        "group": group,
    }
    function = F.conv2d if rank == 2 else F.conv1d
    return Case("Conv", shapes, lambda *v: function(*v, None, stride, pads, dilation, group), attributes=attributes)


def pool(operator: str, shape: tuple[int, ...], kernel: int, stride: int, pads: int = 0, **more: Any) -> Case:
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pads] * 4, **more}
    if operator == "MaxPool":
        return Case(operator, (shape,), lambda x: F.max_pool2d(x, kernel, stride, pads), attributes=attributes)
    include = bool(more.get("count_include_pad", 0))
    reference = lambda x: F.avg_pool2d(x, kernel, stride, pads, count_include_pad=include)  # noqa: E731
    return Case(operator, (shape,), reference, attributes=attributes)


X = (3, 4, 7, 6)
CASES = [
    conv((3, 5, 7, 6), (4, 5, 3, 3), pads=1),
    conv((3, 20, 7, 6), (4, 20, 3, 3), pads=1),
    conv((3, 20, 7, 7), (4, 20, 3, 3), pads=1, stride=2),
    conv((3, 4, 8, 9), (6, 4, 3, 2), stride=2, pads=1),
    conv((3, 4, 9, 9), (6, 4, 3, 3), dilation=2, pads=2),
    conv((3, 4, 9, 9), (6, 4, 3, 3), dilation=2, stride=3),
    conv((2, 6, 7, 6), (4, 3, 3, 3), pads=1, group=2),
    conv((2, 40, 5, 5), (4, 20, 3, 3), pads=1, group=2),
    conv((2, 6, 8, 8), (6, 1, 3, 3), pads=1, group=6),
    conv((2, 6, 8, 8), (12, 1, 3, 3), pads=1, group=6, stride=2),
    conv((2, 6, 8, 8), (6, 1, 3, 3), pads=1, group=6, stride=2),
    conv((2, 5, 4, 4), (7, 5, 1, 1)),
    conv((2, 5, 4, 4), (7, 5, 1, 1), pads=1),
    conv((2, 5, 11), (7, 5, 3), pads=1),
    Case("Conv", ((2, 3, 5, 5), (4, 3, 3, 3), (4,)), F.conv2d),
    Case(
        "Conv",
        ((2, 3, 5, 5), (4, 3, 3, 3)),
        lambda x, w: F.conv2d(F.pad(x, (1, 2, 0, 2)), w),
        attributes={"pads": [0, 1, 2, 2]},
    ),
    Case("Gemm", ((3, 4), (4, 5), (5,)), lambda a, b, c: a @ b + c),
    Case(
        "Gemm",
        ((4, 3), (5, 4), (3, 1)),
        lambda a, b, c: 0.5 * a.T @ b.T + 2 * c,
        attributes={"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    Case("Gemm", ((4, 3), (4, 5)), lambda a, b: a.T @ b, attributes={"transA": 1}),
    Case("Gemm", ((3, 4), (5, 4), (1, 5)), lambda a, b, c: a @ b.T + c, attributes={"transB": 1}),
    Case("MatMul", ((3, 4), (4, 5)), torch.matmul),
    Case("MatMul", ((2, 3, 4, 5), (5, 6)), torch.matmul),
    Case("MatMul", ((2, 1, 4, 5), (3, 5, 6)), torch.matmul),
    Case("Add", ((3, 4, 2), (4, 1)), torch.add),
    Case("Sub", ((3, 1, 2), (4, 1)), torch.sub),
    Case("Mul", ((3, 4, 2), (3, 1, 2)), torch.mul),
    Case("Div", ((4, 2), (3, 4, 2)), torch.div, offset=4.0),
    Case("Relu", (X,), torch.relu),
    pool("AveragePool", (2, 3, 6, 4), 2, 2),
    pool("AveragePool", (2, 3, 7, 5), 2, 2),
    pool("AveragePool", (2, 3, 7, 8), 3, 2),
    pool("AveragePool", (2, 3, 7, 8), 3, 1, 1),
    pool("AveragePool", (2, 3, 7, 8), 3, 2, 1, count_include_pad=1),
    pool("MaxPool", (2, 3, 6, 4), 2, 2),
    pool("MaxPool", (2, 3, 7, 8), 3, 2, 1),
    Case("GlobalAveragePool", (X,), lambda x: x.mean((2, 3), keepdim=True)),
    Case("InstanceNormalization", (X, (4,), (4,)), lambda x, s, b: F.instance_norm(x, weight=s, bias=b)),
    Case("InstanceNormalization", (X, (4,), (4,)), lambda x, s, b: F.instance_norm(x, weight=s, bias=b), offset=3.0),
    Case("Reshape", (X,), lambda x: x.reshape(3, 24, 7), constants=((3, 24, 7),)),
    Case("Flatten", (X,), lambda x: x.flatten(1)),
    Case("Flatten", (X,), lambda x: x.reshape(12, 42), attributes={"axis": 2}),
    Case("Transpose", (X,), lambda x: x.permute(2, 0, 3, 1), attributes={"perm": [2, 0, 3, 1]}),
    Case("Transpose", (X,), lambda x: x.permute(3, 2, 1, 0)),
    Case("Identity", (X,), lambda x: x * 1),
    Case("LogSoftmax", ((5, 7),), lambda x: F.log_softmax(x, -1)),
    Case("LogSoftmax", (X,), lambda x: F.log_softmax(x, 1), attributes={"axis": 1}),
    Case("ReduceMean", (X,), lambda x: x.mean((0, 2)), constants=((0, 2),), attributes={"keepdims": 0}),
    Case("ReduceMean", (X,), lambda x: x.mean((-1,), keepdim=True), constants=((-1,),)),
    Case("ReduceMean", (X,), torch.mean, attributes={"keepdims": 0}),
    Case("ReduceMean", (X,), lambda x: x * 1, attributes={"noop_with_empty_axes": 1}),
    Case("ReduceSum", (X,), lambda x: x.sum((1, 3)), constants=((1, 3),), attributes={"keepdims": 0}),
    Case("ReduceSum", (X,), lambda x: x.sum((2,), keepdim=True), constants=((2,),)),
    Case("ReduceSum", (X,), torch.sum, attributes={"keepdims": 0}),
]


def gradients_of(case: Case, values: list[np.ndarray], weight: np.ndarray) -> list[np.ndarray]:
    """Gradients of sum(weight * node(values)), computed by the graph; the first input's batch is dynamic."""
    b = GraphBuilder()
    free = case.operator not in ("Gemm", "MatMul", "Transpose") and len(case.shapes[0]) == max(map(len, case.shapes))
    names = [
        b.input(f"x{i}", ["n", *shape[1:]] if i == 0 and free and shape[0] > 1 else shape)
        for i, shape in enumerate(case.shapes)
    ]
    output = b.node(case.operator, *names, *(b.integers(*c) for c in case.constants), **case.attributes)
    b.node("ReduceSum", b.node("Mul", output, b.constant(weight)), keepdims=0, name="loss")
    found = differentiate(b, "loss", names)
    model = b.model({found[name]: [None] * len(shape) for name, shape in zip(names, case.shapes, strict=True)})
    assert {node.domain for node in model.graph.node} == {""}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([found[name] for name in names], dict(zip(names, values, strict=True)))


def check(case: Case, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = [generator.standard_normal(shape).astype(np.float32) + case.offset for shape in case.shapes]
    values = [value.astype(np.float32) for value in values]
    leaves = [torch.tensor(value, requires_grad=True) for value in values]
    output = case.torch(*leaves)
    weight = generator.standard_normal(tuple(output.shape)).astype(np.float32)
    (output * torch.tensor(weight)).sum().backward()
    for leaf, gradient in zip(leaves, gradients_of(case, values, weight), strict=True):
        assert leaf.grad is not None
        wanted = leaf.grad.numpy()
        assert gradient.shape == wanted.shape
        assert np.abs(gradient - wanted).max() <= TOLERANCE * max(np.abs(wanted).max(), 1e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_autograd(case: Case) -> None:
    check(case, seed=0)


def test_every_rule_has_a_case() -> None:
    assert {case.operator for case in CASES} == set(GRADIENTS)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.sampled_from([(1, 3, 4), (1, 18, 2), (2, 4, 4), (3, 3, 3), (4, 4, 8)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
)
def test_convolutions_of_any_geometry(
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    geometry: tuple[int, int, int],
) -> None:
    (group, into, out), (stride, pads, dilation) = channels, geometry
    shapes = ((batch, into, *size), (out, into // group, *kernel))
    check(conv(*shapes, pads=pads, stride=stride, dilation=dilation, group=group), seed=batch)


def test_layer_normalization_carries_its_bias() -> None:
    """It is optional, but without it onnxruntime 1.17.1 aborts the process while it optimises the graph."""
    b = GraphBuilder()
    names = [b.input("x", ("n", 3, 4, 4)), b.input("s", (3,)), b.input("b", (3,))]
    b.node("ReduceSum", b.node("InstanceNormalization", *names), keepdims=0, name="loss")
    differentiate(b, "loss", names)
    assert [len(node.input) for node in b.nodes if node.op_type == "LayerNormalization"] == [3]


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
