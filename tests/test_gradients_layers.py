"""Gradient rules of convolution, pooling and normalisation against torch's autograd."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient_cases import Case, Shape, check, differentiated
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedd.errors import ExportError
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate


def conv(*shapes: Shape, pads: int = 0, stride: int = 1, dilation: int = 1, group: int = 1) -> Case:
    rank = len(shapes[0]) - 2
    attributes = {
        "pads": [pads] * 2 * rank,
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
        "group": group,
    }
    function = F.conv2d if rank == 2 else F.conv1d
    return Case("Conv", shapes, lambda *v: function(*v, None, stride, pads, dilation, group), attributes=attributes)


def conv_transpose(
    *shapes: Shape, pads: int = 0, stride: int = 1, dilation: int = 1, group: int = 1, beyond: int = 0
) -> Case:
    rank = len(shapes[0]) - 2
    attributes = {
        "pads": [pads] * 2 * rank,
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
        "output_padding": [beyond] * rank,
        "group": group,
    }
    function = F.conv_transpose2d if rank == 2 else F.conv_transpose1d
    reference = lambda x, w, *bias: function(x, w, *(bias or [None]), stride, pads, beyond, group, dilation)  # noqa: E731
    return Case("ConvTranspose", shapes, reference, attributes=attributes)


def pool(operator: str, shape: Shape, kernel: int, stride: int, pads: int = 0, **more: Any) -> Case:
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pads] * 4, **more}
    ceil = bool(more.get("ceil_mode", 0))
    if operator == "MaxPool":
        dilation = more.get("dilations", 1)
        reference = lambda x: F.max_pool2d(x, kernel, stride, pads, dilation, ceil)  # noqa: E731
        return Case(operator, (shape,), reference, attributes=attributes)
    include = bool(more.get("count_include_pad", 0))
    reference = lambda x: F.avg_pool2d(x, kernel, stride, pads, count_include_pad=include)  # noqa: E731
    return Case(operator, (shape,), reference, attributes=attributes)


def group_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    shape = (1, len(scale), *[1] * (x.ndim - 1))
    grouped = F.group_norm(x, len(scale)).unflatten(1, (len(scale), -1))
    return (grouped * scale.reshape(shape) + bias.reshape(shape)).flatten(1, 2)


def batch_norm(*inputs: torch.Tensor) -> torch.Tensor:
    x, scale, bias, mean, variance = (v if i == 0 else v[:, None, None] for i, v in enumerate(inputs))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + bias


X, C = (3, 4, 7, 6), ((4,),)
CONVOLUTIONS = [
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
    conv_transpose((2, 5, 4, 3), (5, 3, 2, 2), stride=2),
    conv_transpose((2, 5, 4, 3), (5, 3, 3, 3), (3,), stride=2, pads=1, beyond=1),
    conv_transpose((2, 12, 4, 3), (12, 20, 3, 3), stride=2, pads=1),
    conv_transpose((2, 6, 4, 5), (6, 2, 3, 3), (4,), group=2, pads=1),
    conv_transpose((2, 6, 4, 5), (6, 1, 4, 4), group=6, stride=2, pads=1),
    conv_transpose((2, 4, 5, 5), (4, 3, 3, 3), dilation=2, pads=2),
    conv_transpose((2, 4, 5, 5), (4, 3, 3, 3), dilation=3, stride=2, beyond=1),
    conv_transpose((2, 4, 7), (4, 3, 3), stride=3, beyond=2),
]
POOLS = [
    pool("AveragePool", (2, 3, 6, 4), 2, 2),
    pool("AveragePool", (2, 3, 7, 5), 2, 2),
    pool("AveragePool", (2, 3, 7, 8), 3, 2),
    pool("AveragePool", (2, 3, 7, 8), 3, 1, 1),
    pool("AveragePool", (2, 3, 7, 8), 3, 2, 1, count_include_pad=1),
    pool("MaxPool", (2, 3, 6, 4), 2, 2),
    pool("MaxPool", (2, 3, 7, 8), 3, 2, 1),
    pool("MaxPool", (2, 3, 7, 8), 3, 2, ceil_mode=1),
    pool("MaxPool", (2, 3, 9, 8), 3, 1, 1, dilations=[2, 2]),
    Case("GlobalAveragePool", (X,), lambda x: x.mean((2, 3), keepdim=True)),
    Case("GlobalMaxPool", (X,), lambda x: x.amax((2, 3), keepdim=True)),
]
NORMALIZATIONS = [
    Case("InstanceNormalization", (X, *C * 2), lambda x, s, b: F.instance_norm(x, weight=s, bias=b)),
    Case("InstanceNormalization", (X, *C * 2), lambda x, s, b: F.instance_norm(x, weight=s, bias=b), offset=3.0),
    Case("GroupNormalization", ((3, 6, 5, 4), (2,), (2,)), group_norm, attributes={"num_groups": 2}),
    Case("GroupNormalization", ((3, 6, 5), (6,), (6,)), group_norm, attributes={"num_groups": 6}, offset=2.0),
    Case("BatchNormalization", (X, *C * 4), batch_norm, offset=5.0),
    Case("BatchNormalization", ((9, 4, 1, 1), *C * 4), batch_norm, offset=5.0),
    Case("LayerNormalization", ((3, 5, 8), (8,), (8,)), lambda x, s, b: F.layer_norm(x, (8,), s, b)),
    Case("LayerNormalization", ((3, 5, 8), (8,)), lambda x, s: F.layer_norm(x, (8,), s), offset=2.0),
    Case(
        "LayerNormalization",
        ((3, 5, 4, 6), (4, 6), (4, 6)),
        lambda x, s, b: F.layer_norm(x, (4, 6), s, b, 0.1),
        attributes={"axis": 2, "epsilon": 0.1},
    ),
    Case(
        "LayerNormalization",
        ((3, 5, 4), (5, 1), (4,)),
        lambda x, s, b: F.layer_norm(x, (5, 4)) * s + b,
        attributes={"axis": -2},
    ),
]
CASES = CONVOLUTIONS + POOLS + NORMALIZATIONS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_autograd(case: Case) -> None:
    check(case)


CHANNELS = st.sampled_from([(1, 3, 4), (1, 18, 2), (2, 4, 4), (3, 3, 3), (4, 4, 8)])
SIZES = st.tuples(st.integers(5, 9), st.integers(5, 9))
KERNELS = st.tuples(st.integers(1, 3), st.integers(1, 3))
GEOMETRIES = st.fixed_dictionaries(
    {"stride": st.integers(1, 3), "pads": st.integers(0, 2), "dilation": st.integers(1, 2)}
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 3), SIZES, CHANNELS, KERNELS, GEOMETRIES)
def test_convolutions_of_any_geometry(
    batch: int, size: Shape, channels: Shape, kernel: Shape, places: dict[str, int]
) -> None:
    group, into, out = channels
    check(conv((batch, into, *size), (out, into // group, *kernel), **places, group=group))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SIZES, CHANNELS, KERNELS, GEOMETRIES, st.integers(0, 2))
def test_transposed_convolutions_of_any_geometry(
    size: Shape, channels: Shape, kernel: Shape, places: dict[str, int], beyond: int
) -> None:
    """onnxruntime takes no output_padding that reaches the stride."""
    (group, into, out), beyond = channels, min(beyond, places["stride"] - 1)
    check(conv_transpose((2, into, *size), (into, out // group, *kernel), **places, group=group, beyond=beyond))


POOL = (SIZES, st.integers(1, 4), st.integers(1, 3), st.integers(0, 1), st.booleans())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(*POOL)
def test_average_pools_of_any_geometry(size: Shape, kernel: int, stride: int, pads: int, include: bool) -> None:
    check(pool("AveragePool", (2, 3, *size), kernel, stride, min(pads, kernel // 2), count_include_pad=int(include)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(*POOL)
def test_max_pools_of_any_geometry(size: Shape, kernel: int, stride: int, pads: int, ceil: bool) -> None:
    """Unless the last window would lie outside the image, which is refused."""
    pads = min(pads, kernel // 2)
    last = [-((kernel - side - 2 * pads) // stride) * stride - pads for side in size]
    touches = all(start < side for start, side in zip(last, size, strict=True))
    check(pool("MaxPool", (2, 3, *size), kernel, stride, pads, ceil_mode=int(ceil and touches)))


def test_frozen_statistics_need_no_sums_when_only_images_do() -> None:
    b = GraphBuilder()
    channels = [b.constant(np.ones(4)) for _ in range(4)]
    b.node("ReduceSum", b.node("BatchNormalization", b.input("x", ("n", 4, 3, 3)), *channels), keepdims=0, name="loss")
    differentiate(b, "loss", ["x"])
    assert [node.op_type for node in b.nodes].count("ReduceSum") == 1


def test_layer_normalization_carries_its_bias() -> None:
    """It is optional, but without it onnxruntime 1.17.1 aborts the process while it optimises the graph."""
    b = GraphBuilder()
    names = [b.input("x", ("n", 3, 4, 4)), b.input("s", (3,)), b.input("b", (3,))]
    b.node("ReduceSum", b.node("InstanceNormalization", *names), keepdims=0, name="loss")
    differentiate(b, "loss", names)
    assert [len(node.input) for node in b.nodes if node.op_type == "LayerNormalization"] == [3]


WINDOW = {"kernel_shape": [2, 2], "strides": [2, 2]}
KERNEL = np.ones((4, 4, 2, 2), np.float32)
REFUSED = [
    ("Conv", (KERNEL,), {"auto_pad": "SAME_UPPER"}, "auto_pad is set, wanted explicit pads"),
    ("ConvTranspose", (KERNEL,), {"output_shape": [8, 7]}, "output_shape is set, wanted explicit pads"),
    ("AveragePool", (), WINDOW | {"ceil_mode": 1}, "ceil_mode, auto_pad or dilations are set"),
    ("MaxPool", (), WINDOW | {"storage_order": 1}, "storage_order is set"),
    ("MaxPool", (), {"kernel_shape": [1, 1], "strides": [3, 4], "ceil_mode": 1}, "with ceil_mode its last window"),
]


@pytest.mark.parametrize(("operator", "constants", "attributes", "reason"), REFUSED)
def test_refusals(operator: str, constants: tuple, attributes: dict, reason: str) -> None:
    with pytest.raises(ExportError, match=rf"cannot differentiate node 'node' \({operator}\): {reason}"):
        differentiated(operator, X, *constants, **attributes)


def test_statistics_of_training_mode_are_refused() -> None:
    b = GraphBuilder()
    b.input("x", X)
    inputs = ("x", *(b.constant(np.ones(4)) for _ in range(4)))
    b.nodes_of("BatchNormalization", inputs, 3, "node", {"training_mode": 1})
    b.node("ReduceSum", "node", keepdims=0, name="loss")
    with pytest.raises(ExportError, match=r"'node' \(BatchNormalization\): training_mode is set, wanted its inference"):
        differentiate(b, "loss", ["x"])
