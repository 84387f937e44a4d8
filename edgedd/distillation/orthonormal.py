"""Dimension mappers made orthonormal again, with what that changes put into the cores: no image moves.

Mappers drift from orthonormal as Adam moves them; cores then grow or shrink against them, and their bits with it.
"""

from collections.abc import Mapping

import numpy as np
import torch

from edgedd.parameterization import LowRank, Parameterization, SharedBasis
from edgedd.parameterization.shared_basis import BASIS_RMS
from edgedd.parameterization.subspaces import subspace

Factors = Mapping[str, torch.Tensor]
COLLAPSED = 1e-6  # of the largest diagonal entry of R: such a mapper is left as it is


def changes(form: Parameterization, factors: Factors) -> list[list[torch.Tensor]]:
    """For each subspace the R of each of its mappers = Q R; for kinds without mappers none. Diagonals are positive."""
    if isinstance(form, LowRank):
        return [[_r(factors["left"][s]), _r(factors["right"][s].T)] for s in range(form.subspaces)]
    if isinstance(form, SharedBasis):
        return [[_r(factors["basis"][s].flatten(1).T) / _length(form)] for s in range(form.subspaces)]
    return []


@torch.no_grad()
def absorb(form: Parameterization, factors: Factors, found: list[list[torch.Tensor]]) -> None:
    """Divide the mappers by R and multiply the cores with it, in place.

    With the factors that `changes` saw, mappers come out orthonormal (basis pictures at the length that `encode` gives
    them); with others, such as an average of these, images stay as they are too.
    """
    count = len(factors["core"] if isinstance(form, LowRank) else factors["coefficients"]) if found else 0
    place = subspace(np.arange(count), count, max(1, len(found)))
    for s, own in enumerate(found):
        if any(float(r.diagonal().abs().min()) < COLLAPSED * float(r.diagonal().abs().max()) for r in own):
            continue
        rows = torch.from_numpy(np.flatnonzero(place == s)).to(own[0].device)
        if isinstance(form, LowRank):
            left, right = own
            factors["left"][s] = _divided(factors["left"][s], left)
            factors["right"][s] = _divided(factors["right"][s].T, right).T
            factors["core"][rows] = left @ factors["core"][rows] @ right.T
        else:
            basis = factors["basis"][s]
            factors["basis"][s] = _divided(basis.flatten(1).T, own[0]).T.reshape(basis.shape)
            factors["coefficients"][rows] = factors["coefficients"][rows] @ own[0].T


def _r(mapper: torch.Tensor) -> torch.Tensor:
    """(r, r) upper triangular, of a mapper (d, r)."""
    upper: torch.Tensor = torch.linalg.qr(mapper.detach())[1]
    return upper * torch.where(upper.diagonal() < 0, -1.0, 1.0)[:, None]


def _divided(mapper: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """mapper R^-1."""
    divided: torch.Tensor = torch.linalg.solve_triangular(upper, mapper, upper=True, left=False)
    return divided


def _length(form: SharedBasis) -> float:
    return BASIS_RMS * float(np.sqrt(np.prod(form.low_shape)))
