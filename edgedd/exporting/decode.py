"""Decoding of stored rows inside a graph; the same contraction as edgedd.parameterization, in MatMul and Gather.

Letters: k rows, n stored images, r rank, S subspaces. `rows` may be empty.
"""

import numpy as np

from edgedd.exporting.builder import GraphBuilder
from edgedd.parameterization import DCT, Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.parameterization.interpolation import places

PER_IMAGE = ("images", "core", "coefficients")


def factor_inputs(builder: GraphBuilder, parameterization: Parameterization) -> dict[str, str]:
    """Declare each factor as the float32 graph input `factors.<name>`; the number of stored images stays dynamic."""
    shapes = parameterization.factor_shapes(parameterization.least_count)
    stored = "n" if parameterization.per_stored == 1 else "stored"
    return {
        name: builder.input(f"factors.{name}", (stored, *shape[1:]) if name in PER_IMAGE else shape)
        for name, shape in shapes.items()
    }


def decode(builder: GraphBuilder, parameterization: Parameterization, factors: dict[str, str], rows: str) -> str:
    """Append the decoder: rows (k,) int64 -> the name of the images (k, C, H, W), normalised."""
    if isinstance(parameterization, Pixels):
        return builder.node("Gather", factors["images"], rows, axis=0)
    if isinstance(parameterization, Formation):
        return _formation(builder, parameterization, factors, rows)
    if isinstance(parameterization, SharedBasis):
        return _shared_basis(builder, parameterization, factors, rows)
    if isinstance(parameterization, DCT):
        return _dct(builder, parameterization, factors, rows)
    return _low_rank(builder, parameterization, factors, rows)


def _formation(b: GraphBuilder, parameterization: Formation, factors: dict[str, str], rows: str) -> str:
    """U_y X U_x^T with the matrices of the row's tile, which are zero outside it."""
    per_stored, f = (b.constant(n, "int64") for n in (parameterization.per_stored, parameterization.formation))
    stored = b.node("Gather", factors["images"], b.node("Div", rows, per_stored), axis=0)
    tile = b.node("Mod", rows, per_stored)
    down, across = (
        b.node("Unsqueeze", b.node("Gather", matrices, b.node(operator, tile, f), axis=0), b.integers(1))
        for operator, matrices in (
            ("Div", _tile_matrices(b, parameterization, parameterization.shape[1])),
            ("Mod", _tile_matrices(b, parameterization, parameterization.shape[2])),
        )
    )
    return b.node("MatMul", down, b.node("MatMul", stored, b.node("Transpose", across, perm=[0, 1, 3, 2])))


def _tile_matrices(b: GraphBuilder, parameterization: Formation, side: int) -> str:
    """(f, side, side): what each pixel of an upsampled tile takes from each pixel of the stored image.

    Made in the graph, where the matrices themselves would be most of its bytes.
    """
    tiles = parameterization.tiles(side)
    taken_at = np.stack([places(tile.stop - tile.start, side) for tile in tiles])[:, :, None]
    lies_at = np.stack([np.arange(side) - tile.start for tile in tiles])[:, None, :]
    return _hat(b, taken_at, lies_at)


def _hat(b: GraphBuilder, taken_at: np.ndarray, lies_at: np.ndarray) -> str:
    """max(0, 1 - |x - y|) of all pairs: the weights of bilinear interpolation."""
    distance = b.node("Abs", b.node("Sub", b.constant(taken_at), b.constant(lies_at)))
    return b.node("Relu", b.node("Sub", b.constant(1), distance))


def _low_rank(b: GraphBuilder, parameterization: LowRank, factors: dict[str, str], rows: str) -> str:
    """L_s K_i,c R_s with s = floor(i S / n); mappers are gathered row by row, so that no rows give no images."""
    core = b.node("Gather", factors["core"], rows, axis=0)
    place = _subspace(b, parameterization.subspaces, factors["core"], rows)
    left, right = (
        b.node("Unsqueeze", b.node("Gather", factors[name], place, axis=0), b.integers(1)) for name in ("left", "right")
    )
    return b.node("MatMul", left, b.node("MatMul", core, right))


def _dct(b: GraphBuilder, parameterization: DCT, factors: dict[str, str], rows: str) -> str:
    """One axis after the other to the end, and times its cosines.

    A matrix on the left of no images at all does not broadcast; nor does a transposed operand, which onnxruntime fuses
    into the product where no reshape keeps them apart.
    """
    (channels, height, width), r = parameterization.shape, parameterization.rank
    colour, down, across = (b.constant(matrix) for matrix in parameterization.waves)

    def along(values: str, perm: list[int], shape: tuple[int, int], matrix: str) -> str:
        flat = b.node("Reshape", b.node("Transpose", values, perm=perm), b.integers(0, *shape))
        return b.node("MatMul", flat, matrix)

    some = b.node("Gather", factors["coefficients"], rows, axis=0)
    mixed = b.node("Reshape", along(some, [0, 2, 3, 1], (r * r, channels), colour), b.integers(0, r, r, channels))
    tall = b.node("Reshape", along(mixed, [0, 3, 2, 1], (channels * r, r), down), b.integers(0, channels, r, height))
    wide = along(tall, [0, 1, 3, 2], (channels * height, r), across)
    return b.node("Reshape", wide, b.integers(0, channels, height, width))


def _shared_basis(b: GraphBuilder, parameterization: SharedBasis, factors: dict[str, str], rows: str) -> str:
    """M_s b_i + mu_s as one product over all subspaces, in which the coefficients of the others are 0.

    Gathering M_s row by row would take r images for each image; this takes the numbers of all bases in products.
    """
    subspaces, rank = parameterization.subspaces, parameterization.rank
    place = _subspace(b, subspaces, factors["coefficients"], rows)
    chosen = b.node("OneHot", place, b.constant(subspaces, "int64"), b.constant([0, 1]))
    coefficients = b.node("Gather", factors["coefficients"], rows, axis=0)
    placed = b.node("Mul", *(b.node("Unsqueeze", x, b.integers(axis)) for x, axis in ((chosen, 2), (coefficients, 1))))
    basis = b.node("Reshape", factors["basis"], b.integers(subspaces * rank, -1))
    mean = b.node("Reshape", factors["mean"], b.integers(subspaces, -1))
    mixed = b.node("MatMul", b.node("Reshape", placed, b.integers(0, subspaces * rank)), basis)
    flat = b.node("Add", mixed, b.node("MatMul", chosen, mean))
    low = b.node("Reshape", flat, b.integers(0, *parameterization.low_shape))
    if not parameterization.half:
        return low
    down, across = (
        _hat(b, places(size, side)[:, None], np.arange(size)[None])
        for size, side in zip(parameterization.low_shape[1:], parameterization.shape[1:], strict=True)
    )
    # One matrix on the left of no images at all does not broadcast in onnxruntime: it stands once for each row.
    each = b.node("Expand", down, b.node("Concat", b.node("Shape", rows), b.integers(1, 1, 1), axis=0))
    return b.node("MatMul", each, b.node("MatMul", low, b.node("Transpose", across, perm=[1, 0])))


def _subspace(b: GraphBuilder, subspaces: int, per_image: str, rows: str) -> str:
    """floor(i S / n) of each row i, with n from the factor `per_image`."""
    count = b.node("Gather", b.node("Shape", per_image), b.constant(0, "int64"), axis=0)
    return b.node("Div", b.node("Mul", rows, b.constant(subspaces, "int64")), count)
