"""Augmentation inside a graph, from the arrays of edgedd.augmentation.Draw: colour, then affine, then cutout."""

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.exporting.builder import GraphBuilder

Shape = tuple[int, int, int]


def augment(builder: GraphBuilder, augmentation: Augmentation, shape: Shape, images: str) -> str:
    """Append the families that are switched on: images (b, C, H, W) -> the name of the same, changed.

    Declares the inputs `augment.colour` (b, 3), `augment.affine` (b, 2, 3) and `augment.cutout` (b, 4), behind the
    builder's prefix, each only when its family is on.
    """
    start = f"{builder.prefix}augment."
    if augmentation.colour:
        images = _colour(builder, shape[0], images, builder.input(f"{start}colour", ("b", 3)))
    if augmentation.moves:
        warp = _affine if augmentation.rotate else _separable
        images = warp(builder, shape, images, builder.input(f"{start}affine", ("b", 2, 3)))
    if augmentation.cutout:
        images = _cutout(builder, shape, images, builder.input(f"{start}cutout", ("b", 4)))
    return images


def _colour(b: GraphBuilder, channels: int, images: str, colour: str) -> str:
    """x + brightness; then away from the pixel's grey by saturation; then from the image's mean by contrast."""
    spatial = b.node("Reshape", colour, b.integers(0, 3, 1, 1))
    brightness, saturation, contrast = (_column(b, spatial, i) for i in range(3))
    images = b.node("Add", images, brightness)
    if channels > 1:
        images = _away(b, images, b.node("ReduceMean", images, b.integers(1), keepdims=1), saturation)
    return _away(b, images, b.node("ReduceMean", images, b.integers(1, 2, 3), keepdims=1), contrast)


def _away(b: GraphBuilder, images: str, mean: str, factor: str) -> str:
    return b.node("Add", b.node("Mul", b.node("Sub", images, mean), factor), mean)


def _column(b: GraphBuilder, values: str, index: int) -> str:
    return b.node("Slice", values, b.integers(index), b.integers(index + 1), b.integers(1))


def _centres(side: int) -> np.ndarray:
    """Pixel centres in [-1, 1], float32 (side,)."""
    return ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)


def _affine(b: GraphBuilder, shape: Shape, images: str, affine: str) -> str:
    """Sample bilinearly at affine @ [x, y, 1] of each pixel centre; outside is 0.

    The base grid is a broadcast of two small constants: onnxruntime folds it when it loads the graph, and the
    file stays small.
    """
    _, height, width = shape
    sides = b.integers(height, width, 1)
    x = b.node("Expand", b.constant(_centres(width).reshape(1, width, 1)), sides)
    y = b.node("Expand", b.constant(_centres(height).reshape(height, 1, 1)), sides)
    base = b.node("Concat", x, y, b.node("Expand", b.constant([[[1.0]]]), sides), axis=2)
    flat = b.node("Reshape", base, b.integers(height * width, 3))
    grid = b.node("MatMul", flat, b.node("Transpose", affine, perm=[0, 2, 1]))
    grid = b.node("Reshape", grid, b.integers(0, height, width, 2))
    return b.node("GridSample", images, grid, mode="bilinear", padding_mode="zeros", align_corners=0)


def _separable(b: GraphBuilder, shape: Shape, images: str, affine: str) -> str:
    """The same without rotation: bilinear weights of rows and of columns, as two matrix products."""
    flat = b.node("Reshape", affine, b.integers(0, 6, 1, 1))
    (_, height, width) = shape
    stretch_x, shift_x, stretch_y, shift_y = (_column(b, flat, i) for i in (0, 2, 4, 5))
    across = _weights(b, width, (stretch_x, shift_x), 3)
    down = _weights(b, height, (stretch_y, shift_y), 2)
    return b.node("MatMul", b.node("MatMul", down, images), across)


def _weights(b: GraphBuilder, side: int, line: tuple[str, str], axis: int) -> str:
    """(b, 1, side, side): 1 - |u - j|, not below 0, of output positions u along `axis` and input pixels j.

    `line` is what positions are stretched and shifted by.
    """
    centres = _centres(side)
    along = {2: centres[:, None], 3: centres[None, :]}
    positions = b.node("Add", b.node("Mul", line[0], b.constant(along[axis])), line[1])
    scaled = b.node("Mul", positions, b.constant(side / 2))
    distance = b.node("Abs", b.node("Sub", scaled, b.constant(along[5 - axis] * side / 2)))
    return b.node("Relu", b.node("Sub", b.constant(1.0), distance))


def _cutout(b: GraphBuilder, shape: Shape, images: str, cutout: str) -> str:
    """0 where a pixel's centre lies within the half sides of the centre of the square."""
    _, height, width = shape
    spatial = b.node("Reshape", cutout, b.integers(0, 4, 1, 1))
    centre_x, centre_y, half_width, half_height = (_column(b, spatial, i) for i in range(4))
    sides = (
        (_centres(width).reshape(1, 1, 1, width), centre_x, half_width),
        (_centres(height).reshape(1, 1, height, 1), centre_y, half_height),
    )
    inside = [b.node("LessOrEqual", b.node("Abs", b.node("Sub", b.constant(p), c)), half) for p, c, half in sides]
    kept = b.node("Cast", b.node("Not", b.node("And", *inside)), to=1)
    return b.node("Mul", images, kept)
