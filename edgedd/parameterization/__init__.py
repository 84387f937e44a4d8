"""How synthetic images are stored: the kinds, and the one that a file names.

Letters: n images, C channels, H and W pixels, r rank, S subspaces, b rows asked for. A factor is an array with a name;
`decode` runs under numpy and under torch alike, written in tensorly calls, and is differentiable under torch. The
training graph repeats the same contraction (edgedd.exporting.decode).
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgedd.errors import SettingError
from edgedd.parameterization.dct import DCT
from edgedd.parameterization.formation import Formation
from edgedd.parameterization.low_rank import LowRank
from edgedd.parameterization.pixels import Pixels
from edgedd.parameterization.shared_basis import SharedBasis
from edgedd.parameterization.stored_images import MAX_SIDE, MIN_SIDE

__all__ = [
    "DCT",
    "MAX_SIDE",
    "MIN_SIDE",
    "PARAMETERIZATIONS",
    "Formation",
    "LowRank",
    "Parameterization",
    "Pixels",
    "SharedBasis",
    "parameterization_from_dict",
]

Parameterization = Pixels | Formation | LowRank | SharedBasis | DCT
PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    "pixels": Pixels,
    "formation": Formation,
    "low_rank": LowRank,
    "shared_basis": SharedBasis,
    "dct": DCT,
}


def parameterization_from_dict(values: Mapping[str, Any]) -> Parameterization:
    """The inverse of `as_dict`. Raises SettingError for an unknown kind, key or value."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in PARAMETERIZATIONS:
        raise SettingError(f"parameterization kind={kind!r}, wanted one of {', '.join(PARAMETERIZATIONS)}")
    wanted = {field.name for field in fields(PARAMETERIZATIONS[kind])}
    given = set(values) - {"kind"}
    if given != wanted:
        odd = ", ".join(sorted(given ^ wanted))
        raise SettingError(f"parameterization {kind} has unknown or missing keys ({odd}), wanted {sorted(wanted)}")
    shape = values["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise SettingError(f"parameterization shape={shape!r}, wanted [channels, height, width]")
    rest = {key: values[key] for key in wanted - {"shape"}}
    return PARAMETERIZATIONS[kind](shape=(shape[0], shape[1], shape[2]), **rest)
