"""Decoding of stored rows inside a graph; the same contraction as edgedd.parameterization, in MatMul and Gather.

Letters: k rows, n stored images, r rank, S subspaces. `rows` may be empty.
"""

from edgedd.exporting.builder import GraphBuilder
from edgedd.parameterization import LowRank, Parameterization, Pixels


def factor_inputs(builder: GraphBuilder, parameterization: Parameterization) -> dict[str, str]:
    """Declare each factor as the float32 graph input `factors.<name>`; n stays dynamic."""
    per_image = {"images", "core"}
    return {
        name: builder.input(f"factors.{name}", ("n", *shape[1:]) if name in per_image else shape)
        for name, shape in parameterization.factor_shapes(1).items()
    }


def decode(builder: GraphBuilder, parameterization: Parameterization, factors: dict[str, str], rows: str) -> str:
    """Append the decoder: rows (k,) int64 -> the name of the images (k, C, H, W), normalised."""
    if isinstance(parameterization, Pixels):
        return builder.node("Gather", factors["images"], rows, axis=0)
    return _low_rank(builder, parameterization, factors, rows)


def _low_rank(b: GraphBuilder, parameterization: LowRank, factors: dict[str, str], rows: str) -> str:
    """L_s K_i,c R_s with s = floor(i S / n); mappers are gathered row by row, so that no rows give no images."""
    core = b.node("Gather", factors["core"], rows, axis=0)
    count = b.node("Gather", b.node("Shape", factors["core"]), b.constant(0, "int64"), axis=0)
    place = b.node("Div", b.node("Mul", rows, b.constant(parameterization.subspaces, "int64")), count)
    left, right = (
        b.node("Unsqueeze", b.node("Gather", factors[name], place, axis=0), b.integers(1)) for name in ("left", "right")
    )
    return b.node("MatMul", left, b.node("MatMul", core, right))
