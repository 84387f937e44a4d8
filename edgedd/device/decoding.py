"""Images of a set's rows by numpy alone: a device has no tensorly; the same contractions as `SyntheticSet.images`.

Letters: b rows, n images, C channels, H and W pixels, r rank, S subspaces.
"""

import numpy as np

from edgedd.parameterization.dct import DCT
from edgedd.parameterization.formation import Formation
from edgedd.parameterization.interpolation import bilinear
from edgedd.parameterization.low_rank import LowRank
from edgedd.parameterization.shared_basis import SharedBasis
from edgedd.parameterization.subspaces import subspace
from edgedd.synthetic_set import SyntheticSet


def decoded(synthetic: SyntheticSet, rows: np.ndarray) -> np.ndarray:
    """Images (b, C, H, W) of the rows (b,), float32, normalised by the set's mean and std."""
    form, factors = synthetic.parameterization, synthetic.factors
    if isinstance(form, LowRank):
        place = subspace(rows, synthetic.count, form.subspaces)
        return np.asarray(factors["left"][place, None] @ factors["core"][rows] @ factors["right"][place, None])
    if isinstance(form, DCT):
        colour, down, across = form.waves
        mixed = np.einsum("nkpq,kc->ncpq", factors["coefficients"][rows], colour)
        return np.asarray(down.T @ mixed @ across)
    if isinstance(form, SharedBasis):
        return _mixed(form, factors, rows, synthetic.count)
    if isinstance(form, Formation):
        return np.stack([_tile(form, factors["images"], int(row)) for row in rows])
    return np.asarray(factors["images"][rows])


def _mixed(form: SharedBasis, factors: dict[str, np.ndarray], rows: np.ndarray, count: int) -> np.ndarray:
    """Coefficients times the basis pictures of their subspace, and its mean."""
    place = subspace(rows, count, form.subspaces)
    low = np.empty((len(rows), *form.low_shape), np.float32)
    for s in np.unique(place):
        low[place == s] = np.tensordot(factors["coefficients"][rows[place == s]], factors["basis"][s], axes=1)
    return _upsampled(low + factors["mean"][place], form.shape[1:])


def _tile(form: Formation, images: np.ndarray, row: int) -> np.ndarray:
    """Image `row`, cut out of its stored image and upsampled."""
    stored, q = divmod(row, form.per_stored)
    rows, columns = (form.tiles(side) for side in form.shape[1:])
    return _upsampled(images[stored][:, rows[q // form.formation], columns[q % form.formation]], form.shape[1:])


def _upsampled(images: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    if images.shape[-2:] == sides:
        return images
    down, across = (bilinear(low, side) for low, side in zip(images.shape[-2:], sides, strict=True))
    return np.asarray(down @ images @ across.T)
