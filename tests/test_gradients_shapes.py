"""Gradient rules of operators that move elements, and of Resize, against torch's autograd."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient_cases import Case, Shape, assert_close, check, constant, differentiated, session_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedd.errors import ExportError
from edgedd.exporting.builder import GraphBuilder
from edgedd.exporting.differentiate import differentiate
from edgedd.exporting.resizing import COORDINATES

X = (3, 4, 7, 6)
HUGE = 2**63 - 1


def cut(shape: Shape, *places: Shape, dynamic: bool = True) -> Case:
    """`places` are starts, ends, axes and steps."""

    def reference(x: torch.Tensor) -> torch.Tensor:
        for start, end, axis, step in zip(*places, strict=True):
            x = x.index_select(axis, torch.arange(x.shape[axis])[np.arange(x.shape[axis])[start:end:step].copy()])
        return x

    return Case("Slice", (shape,), reference, constants=places, dynamic=dynamic)


def gathered(shape: Shape, indices: Any, axis: int, dynamic: bool = True) -> Case:
    indices = np.asarray(indices)

    def reference(x: torch.Tensor) -> torch.Tensor:
        picked = x.index_select(axis, torch.tensor(indices.ravel() % shape[axis]))
        return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis % x.ndim + 1 :])

    return Case("Gather", (shape,), reference, constants=(indices,), attributes={"axis": axis}, dynamic=dynamic)


def interpolated(shape: Shape, sizes: Shape, mode: str, corners: bool | None = None) -> Case:
    """With scales, as torch.onnx writes nn.Upsample."""
    linear = mode != "nearest"
    coordinates = "asymmetric" if not linear else "align_corners" if corners else "half_pixel"
    attributes = {"mode": "linear" if linear else "nearest", "coordinate_transformation_mode": coordinates}
    attributes |= {} if linear else {"nearest_mode": "floor"}
    scales = np.float32([1, 1, *(new / old for new, old in zip(sizes, shape[2:], strict=True))])
    reference = lambda x: F.interpolate(x, sizes, mode=mode, align_corners=corners)  # noqa: E731
    return Case("Resize", (shape,), reference, constants=(None, scales), attributes=attributes)


SHAPES = [
    Case("Reshape", (X,), lambda x: x.reshape(3, 24, 7), constants=((3, 24, 7),)),
    Case("Reshape", (X,), lambda x: x.reshape(3, 2, 2, 42), constants=((0, 2, 2, -1),)),
    Case("Flatten", (X,), lambda x: x.flatten(1)),
    Case("Flatten", (X,), lambda x: x.reshape(12, 42), attributes={"axis": 2}),
    Case("Squeeze", ((3, 4, 1, 1),), lambda x: x.reshape(3, 4), constants=((2, -1),)),
    Case("Squeeze", ((3, 1, 4, 1),), torch.squeeze, dynamic=False),
    Case("Unsqueeze", (X,), lambda x: x[:, None, ..., None], constants=((1, -1),)),
    Case("Expand", ((3, 1, 7, 1),), lambda x: x.expand(3, 4, 7, 6), constants=((1, 4, 1, 6),)),
    Case("Expand", ((4, 1),), lambda x: x.expand(3, 4, 6), constants=((3, 1, 6),), dynamic=False),
    Case("Transpose", (X,), lambda x: x.permute(2, 0, 3, 1), attributes={"perm": [2, 0, 3, 1]}),
    Case("Transpose", (X,), lambda x: x.permute(3, 2, 1, 0)),
    Case("Concat", (X, X), lambda a, b: torch.cat((a, b), 1), attributes={"axis": 1}, dynamic=False),
    Case("Concat", ((3, 1, 2), (3, 4, 2)), lambda a, b: torch.cat((a, b), -2), attributes={"axis": -2}),
    Case("Split", (X,), lambda x: x.split((1, 3), 1), constants=((1, 3),), attributes={"axis": 1}),
    Case("Split", (X,), lambda x: (x[..., :2], None, x[..., 5:]), constants=((2, 3, 1),), attributes={"axis": -1}),
    Case("Split", (X,), lambda x: (None, x[:, 2:]), attributes={"axis": 1, "num_outputs": 2}),
    Case("Split", ((4, 5),), lambda x: (x[:2], x[2:]), attributes={"num_outputs": 2}, dynamic=False),
]
CUTS = [
    cut(X, (1, 2), (5, HUGE), (2, 3), (1, 1)),
    cut(X, (-3,), (-1,), (-1,), (1,)),
    cut(X, (0, 1), (HUGE, 3), (0, 1), (1, 1)),
    cut(X, (0, 1), (HUGE, 6), (2, 3), (2, 3)),
    cut(X, (-1,), (-HUGE,), (2,), (-1,)),
    cut(X, (5, 1), (0, 3), (2, 1), (-2, 1)),
    cut(X, (2,), (0,), (0,), (-1,), dynamic=False),
    Case("Slice", ((3, 4),), lambda x: x[1:, :2], constants=((1, 0), (3, 2)), dynamic=False),
    Case("Pad", (X,), lambda x: F.pad(x, (1, 2, 0, 3)), constants=((0, 0, 0, 1, 0, 0, 3, 2),)),
    Case("Pad", (X,), lambda x: F.pad(x, (1, 2), value=7), constants=((1, 2), np.float32(7), (3,))),
    Case("Pad", (X,), lambda x: F.pad(x, (-1, 2, 1, -3)), constants=((0, 0, 1, -1, 0, 0, -3, 2),)),
    gathered(X, 2, 1),
    gathered(X, -1, 3),
    gathered(X, [2, 0, 3, 1], 1),
    gathered(X, [[4, 1, -1]], 2),
    gathered(X, [[1, 1], [0, 3]], 1),
    gathered(X, [5, 5, 2], -1),
    gathered((5, 3), [4, 0, 0], 0, dynamic=False),
]
RESIZES = [
    interpolated((2, 3, 4, 5), (8, 10), "nearest"),
    interpolated((2, 3, 8, 6), (4, 3), "nearest"),
    interpolated((2, 3, 4, 5), (8, 10), "bilinear", False),
    interpolated((2, 3, 4, 5), (8, 15), "bilinear", True),
    interpolated((2, 3, 8, 5), (4, 5), "bilinear", False),
    interpolated((2, 3, 4), (12,), "nearest"),
    Case(
        "Resize",
        ((2, 3, 4, 5),),
        lambda x: F.interpolate(x, (7, 3), mode="bilinear"),
        constants=(None, None, (7, 3)),
        attributes={"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
]
CASES = SHAPES + CUTS + RESIZES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_autograd(case: Case) -> None:
    check(case)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_slices_of_any_kind(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(2, 4), st.integers(1, 8), st.integers(1, 8)))
    axes = data.draw(st.lists(st.sampled_from([1, 2]), unique=True, min_size=1))
    starts, ends, steps = [], [], []
    for axis in axes:
        steps.append(data.draw(st.integers(-3, 3).filter(bool)))
        bounds = st.integers(-shape[axis] - 2, shape[axis] + 2) | st.sampled_from([-HUGE, HUGE])
        kept = bounds.flatmap(lambda start: st.tuples(st.just(start), bounds))  # noqa: B023
        start, end = data.draw(kept.filter(lambda r: len(range(shape[axis])[r[0] : r[1] : steps[-1]])))  # noqa: B023
        starts.append(start)
        ends.append(end)
    check(cut(shape, tuple(starts), tuple(ends), tuple(axes), tuple(steps)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(3, 5)] * 3), st.tuples(*[st.integers(-1, 3)] * 4))
def test_pads_of_any_width(shape: Shape, widths: Shape) -> None:
    left, right, top, bottom = widths
    reference = lambda x: F.pad(x, (left, right, top, bottom))  # noqa: E731
    check(Case("Pad", (shape,), reference, constants=((0, top, left, 0, bottom, right),)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), st.tuples(*[st.integers(2, 5)] * 3), st.integers(1, 2), st.integers(1, 3), st.booleans())
def test_gathers_of_any_indices(data: st.DataObject, shape: Shape, axis: int, rank: int, computed: bool) -> None:
    """Computed indices as well as constant ones."""
    size = shape[axis]
    sides = data.draw(st.tuples(*[st.integers(1, 3)] * (rank - 1)))
    count = int(np.prod(sides))
    drawn = data.draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
    indices = np.array(drawn, np.int64).reshape(sides)
    if not computed:
        check(gathered(shape, indices, axis))
        return
    b = GraphBuilder()
    b.input("x", ("n", *shape[1:]))
    picked = b.node("Gather", "x", b.input("indices", sides, kind=7), axis=axis)
    b.node("ReduceSum", b.node("Mul", picked, picked), keepdims=0, name="loss")
    found = differentiate(b, "loss", ["x"])["x"]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    counts = np.bincount(indices.ravel() % size, minlength=size)
    wanted = 2 * x * counts.reshape([size if i == axis else 1 for i in range(3)])
    session = session_of(b.model({found: [None] * 3}))
    assert_close(session.run([found], {"x": x, "indices": indices})[0], wanted.astype(np.float32))


def test_rows_of_a_table_are_gathered_by_a_dynamic_number_of_indices() -> None:
    b = GraphBuilder()
    picked = b.node("Gather", b.input("x", (3, 2)), b.input("rows", ("k",), kind=7))
    b.node("ReduceSum", picked, keepdims=0, name="loss")
    found = differentiate(b, "loss", ["x"])["x"]
    session = session_of(b.model({found: [3, 2]}))
    feed = {"x": np.zeros((3, 2), np.float32), "rows": np.array([2, 0, -1])}
    np.testing.assert_array_equal(session.run([found], feed)[0], [[1, 1], [0, 0], [2, 2]])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 2), st.data())
def test_parts_are_joined_and_split_along_any_axis(sizes: list[int], axis: int, data: st.DataObject) -> None:
    shapes = tuple((3, size, 2) if axis == 1 else (3, 2, size) for size in sizes)
    check(Case("Concat", shapes, lambda *x: torch.cat(x, axis), attributes={"axis": axis}))
    used = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)).filter(any))
    whole = (3, sum(sizes), 2) if axis == 1 else (3, 2, sum(sizes))
    reference = lambda x: tuple(  # noqa: E731
        part if use else None for part, use in zip(x.split(sizes, axis), used, strict=True)
    )
    check(Case("Split", (whole,), reference, constants=(tuple(sizes),), attributes={"axis": axis}))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["linear", "nearest"]),
            "coordinate_transformation_mode": st.sampled_from(COORDINATES),
            "nearest_mode": st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
        }
    ),
    st.booleans(),
)
def test_resizes_of_any_kind(size: Shape, result: Shape, attributes: dict[str, str], by_scales: bool) -> None:
    """Resize is linear: its gradient is right when <A x, w> = <x, A^T w>, whatever x and w are."""
    scales = np.float32([1, 1, *((new + 0.01) / old for new, old in zip(result, size, strict=True))])
    b, generator = GraphBuilder(), np.random.default_rng(0)
    b.input("x", ("n", 2, *size))
    end = (scales,) if by_scales else (None, (3, 2, *result))
    b.node("Resize", "x", "", *(constant(b, value) for value in end), name="y", **attributes)
    w = b.constant(generator.standard_normal((3, 2, *result)))
    b.node("ReduceSum", b.node("Mul", "y", w), keepdims=0, name="loss")
    found = differentiate(b, "loss", ["x"])["x"]
    session = session_of(b.model({"loss": [], found: [None] * 4}))
    for _ in range(3):
        x = generator.standard_normal((3, 2, *size)).astype(np.float32)
        loss, gradient = session.run(["loss", found], {"x": x})
        assert gradient.shape == x.shape
        assert abs((gradient * x).sum() - loss) <= 1e-4 * np.abs(gradient * x).sum()


SIZES = (3, 4, 14, 12)
REFUSED = [
    ("Pad", ((0, 0, 1, 1, 0, 0, 1, 1),), {"mode": "reflect"}, "its mode is 'reflect', wanted 'constant'"),
    ("Pad", ((0, 0, 1, 1, 0, 0, 1, 1),), {"mode": "edge"}, "its mode is 'edge', wanted 'constant'"),
    ("Resize", (None, None, SIZES), {"mode": "cubic"}, "it is cubic with half_pixel, wanted nearest or linear"),
    (
        "Resize",
        (None, None, SIZES),
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
        "it is nearest with tf_crop_and_resize, wanted nearest or linear with one of half_pixel",
    ),
    ("Resize", (None, None, SIZES), {"mode": "linear", "antialias": 1}, "antialias or keep_aspect_ratio_policy is set"),
    ("Resize", (None, np.float32([2, 1, 1, 1])), {}, "it resizes axis 0, which is dynamic"),
    ("Slice", ((1,), (2,), (0,)), {}, "axis 0 of 'x' is dynamic, wanted a fixed length there"),
    ("Gather", (np.int64(1),), {}, "axis 0 of 'x' is dynamic, wanted a fixed length there"),
]


@pytest.mark.parametrize(("operator", "constants", "attributes", "reason"), REFUSED)
def test_refusals(operator: str, constants: tuple, attributes: dict, reason: str) -> None:
    with pytest.raises(ExportError, match=rf"cannot differentiate node 'node' \({operator}\): {reason}"):
        differentiated(operator, ("n", *X[1:]), *constants, **attributes)
