"""Images as their lowest cosine frequencies, colour included; letters as in edgedd.parameterization."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from edgedd.errors import SettingError
from edgedd.parameterization.stored_images import Shape, by, check_stored, images_of, whole
from edgedd.parameterization.subspaces import backend_of, tensorly


@dataclass(frozen=True)
class DCT:
    """Image i = the inverse of the orthonormal DCT-II over channels, rows and columns, of its lowest frequencies.

    Factor `coefficients` (n, C, r, r), in few bits: the r lowest frequencies along each side, of every frequency of
    colour (for three channels: grey, the difference of the outer ones, the middle one against them). Nothing is shared
    and nothing but coefficients is stored. JPEG's idea for a whole image (Wallace 1992); stored frequencies of
    synthetic images are FreD's (Shin et al. 2023).
    """

    shape: Shape
    rank: int
    bits: int = 8
    kind: ClassVar[str] = "dct"
    per_stored: ClassVar[int] = 1
    least_count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_stored(self.shape, self.bits)
        most = min(self.shape[1:])
        if not whole(self.rank) or not 1 <= self.rank <= most:
            raise SettingError(f"rank={self.rank!r}, wanted a whole number in [1, {most}] for {by(self.shape)} images")

    def check_count(self, count: int) -> None:
        """Any number of images can be stored."""

    def factor_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of the factor for `count` images."""
        return {"coefficients": (count, self.shape[0], self.rank, self.rank)}

    def scale_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of its scale: one a frequency, shared by all images."""
        return {} if self.bits == 16 else {"coefficients": (1, self.shape[0], self.rank, self.rank)}

    @property
    def has_zero(self) -> bool:
        """Coefficients are centred on 0."""
        return False

    @property
    def waves(self) -> list[np.ndarray]:
        """Rows are the cosines of the axes: (C, C), (r, H), (r, W), float32, orthonormal."""
        channels, height, width = self.shape
        return [cosines(channels), cosines(height)[: self.rank], cosines(width)[: self.rank]]

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (n, C, H, W) -> the factor with the least squared error; at r = H = W it is exact."""
        colour, down, across = self.waves
        kept = np.tensordot(colour, down @ images_of(self.shape, images) @ across.T, axes=(1, 1))
        return {"coefficients": np.ascontiguousarray(kept.swapaxes(0, 1), np.float32)}

    def decode(self, factors: Mapping[str, Any], rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice. Needs tensorly ([decode])."""
        tl = tensorly()
        with backend_of(tl, factors["coefficients"]):
            some = factors["coefficients"][rows]
            colour, down, across = (tl.tensor(matrix, **tl.context(some)) for matrix in self.waves)
        mixed = (colour.T @ some.reshape(*some.shape[:2], self.rank**2)).reshape(some.shape)
        # products along the last axis need no copies: tensorly's contraction, equal to the bit, took twice as long
        return (mixed.swapaxes(2, 3) @ down).swapaxes(2, 3) @ across

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, "shape": list(self.shape), "rank": self.rank, "bits": self.bits}


@cache
def cosines(size: int) -> np.ndarray:
    """The orthonormal DCT-II (size, size): sqrt(2 / size) cos(pi k (2 i + 1) / (2 size)), row 0 over sqrt(2)."""
    k, i = np.arange(size)[:, None], np.arange(size)
    matrix = math.sqrt(2 / size) * np.cos(np.pi * k * (2 * i + 1) / (2 * size))
    matrix[0] /= math.sqrt(2)
    return np.asarray(matrix, np.float32)
