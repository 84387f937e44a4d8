"""The gradient of Resize: each axis is interpolated by a matrix that is known when the graph is made."""

import math

import numpy as np

from edgedd.exporting.broadcasting import lengths
from edgedd.exporting.differentiate import Step

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def resize(step: Step) -> dict[int, str]:
    """y = A_h x A_w^T for nearest and linear interpolation: the gradient is A_h^T g A_w."""
    b, gradient, scales = step.builder, step.gradient, _scales(step)
    for axis, length in enumerate(step.shape(step.inputs[0])):
        if length is None and scales.get(axis, 1) != 1:
            raise step.refusal(f"it resizes axis {axis}, which is dynamic, wanted a fixed length there")
    if step.shape(step.inputs[0]) == step.shape(step.output):
        return {0: gradient}  # onnxruntime copies then, whatever the scales are
    now = lengths(step.shape(step.output))
    for axis in range(len(now)):
        size, result = step.shape(step.inputs[0])[axis], step.shape(step.output)[axis]
        if size is None or result is None:
            continue
        matrix = _matrix(step, size, result, scales.get(axis, 1.0))
        if size == result and (matrix == np.eye(size)).all():
            continue
        now[axis], after = size, math.prod(now[axis + 1 :])
        if axis == len(now) - 1:
            gradient = b.node("MatMul", gradient, b.constant(matrix))
        else:
            columns = b.node("Reshape", gradient, b.integers(-1, result, after))
            product = b.node("MatMul", b.constant(matrix.T), columns)
            gradient = b.node("Reshape", product, b.integers(*now))
    return {0: gradient}


def _scales(step: Step) -> dict[int, float]:
    """Scale of each resized axis. Raises ExportError for a Resize that these matrices do not describe."""
    attributes, shapes = step.attributes, (step.shape(step.inputs[0]), step.shape(step.output))
    texts = {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "keep_aspect_ratio_policy": "stretch"}
    mode, coordinates, policy = (attributes.get(name, word.encode()).decode() for name, word in texts.items())
    if mode not in ("nearest", "linear") or coordinates not in COORDINATES:
        raise step.refusal(
            f"it is {mode} with {coordinates}, wanted nearest or linear with one of {', '.join(COORDINATES)}"
        )
    if attributes.get("antialias", 0) or policy != "stretch":
        raise step.refusal("antialias or keep_aspect_ratio_policy is set, wanted neither")
    axes = [axis % len(shapes[0]) for axis in attributes.get("axes", range(len(shapes[0])))]
    scales, sizes = step.constant(2), step.constant(3)
    if scales is not None and scales.size:
        return dict(zip(axes, scales.tolist(), strict=True))
    if sizes is None:
        raise step.refusal("it has neither scales nor sizes, wanted one of them as a constant")
    sides = {axis: (shapes[0][axis], int(result)) for axis, result in zip(axes, sizes, strict=True)}
    return {axis: result / size for axis, (size, result) in sides.items() if size is not None}


def _matrix(step: Step, size: int, result: int, scale: float) -> np.ndarray:
    """(result, size): what each element of the result takes from each element of the input."""
    place = _places(step, size, result, np.float32(scale))
    matrix, rows = np.zeros((result, size), np.float32), np.arange(result)
    if step.attributes.get("mode", b"nearest") == b"linear":
        place = place.clip(0, size - 1)
        low = np.floor(place).astype(int)
        np.add.at(matrix, (rows, low), low + 1 - place)
        np.add.at(matrix, (rows, (low + 1).clip(max=size - 1)), place - low)
        return matrix
    matrix[rows, _nearest(step, place).clip(0, size - 1)] = 1
    return matrix


def _nearest(step: Step, place: np.ndarray) -> np.ndarray:
    half = np.float32(0.5)
    found = {
        b"round_prefer_floor": np.ceil(place - half),
        b"round_prefer_ceil": np.floor(place + half),
        b"floor": np.floor(place),
        b"ceil": np.ceil(place),
    }
    nearest: np.ndarray = found[step.attributes.get("nearest_mode", b"round_prefer_floor")].astype(int)
    return nearest


def _places(step: Step, size: int, result: int, scale: np.float32) -> np.ndarray:
    """Where in the input each element of the result lies, in float32 as onnxruntime computes it."""
    mode = step.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    index, half = np.arange(result, dtype=np.float32), np.float32(0.5)
    if mode == "align_corners":
        return index * np.float32(size - 1) / np.float32(max(result - 1, 1))
    if mode == "asymmetric":
        return index / scale
    if mode == "pytorch_half_pixel" and result == 1:
        return np.zeros(1, np.float32)
    return (index + half) / scale - half
