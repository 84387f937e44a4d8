"""Images as coefficients of shared basis pictures; letters as in edgedd.parameterization, and D' = C h w."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgedd.errors import SettingError
from edgedd.parameterization.interpolation import bilinear
from edgedd.parameterization.stored_images import Shape, by, check_stored, images_of, whole
from edgedd.parameterization.subspaces import backend_of, check_subspaces, index_of, place_by_place, subspace, tensorly

BASIS_RMS = 0.1  # of a pixel of a basis picture: Adam's steps on coefficients and on the basis then move images alike


@dataclass(frozen=True)
class SharedBasis:
    """Image i = M_s b_i + mu_s in S subspaces (MTT-LSS, Kong et al. 2025, in vector form: METHODS 1.11, reading B).

    With S = 1, no mean and half resolution these are the bases of Deng and Russakovsky (2022, "Remember the Past").

    Factors: `coefficients` (n, r), the "basis vectors" b_i, in few bits; `basis` (S, r, C, h, w), whose flattened
    pictures are the columns of the "dimension mapper" M_s, and `mean` (S, C, h, w), in 16 bits. h x w is H x W, or half
    of it on each side (`half`): images are upsampled bilinearly then. Image i lies in subspace floor(i S / n).
    """

    shape: Shape
    rank: int
    subspaces: int = 1
    bits: int = 8
    half: bool = False
    kind: ClassVar[str] = "shared_basis"
    per_stored: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_stored(self.shape, self.bits)
        if not isinstance(self.half, bool):
            raise SettingError(f"half={self.half!r}, wanted true or false")
        if self.half and any(side % 2 for side in self.shape[1:]):
            raise SettingError(f"half of {by(self.shape)} images, wanted even sides: leave half out")
        most = math.prod(self.low_shape)
        if not whole(self.rank) or not 1 <= self.rank <= most:
            raise SettingError(
                f"rank={self.rank!r}, wanted a whole number in [1, {most}] for basis pictures of {by(self.low_shape)}"
            )
        check_subspaces(self.subspaces)

    @property
    def low_shape(self) -> Shape:
        """(C, h, w)."""
        channels, height, width = self.shape
        return (channels, height // 2, width // 2) if self.half else self.shape

    @property
    def least_count(self) -> int:
        """As many images as basis pictures: with fewer, the images themselves would take less."""
        return self.subspaces * self.rank

    def check_count(self, count: int) -> None:
        """Raises SettingError when there are fewer images than basis pictures."""
        if count < self.least_count:
            raise SettingError(
                f"{count} images for {self.subspaces} x {self.rank} basis pictures, wanted at least as many: "
                "lower rank or subspaces, or store more images"
            )

    def factor_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of each factor for `count` images."""
        return {
            "coefficients": (count, self.rank),
            "basis": (self.subspaces, self.rank, *self.low_shape),
            "mean": (self.subspaces, *self.low_shape),
        }

    def scale_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of the scale of each quantised factor: one a coefficient, shared by all images."""
        return {} if self.bits == 16 else {"coefficients": (1, self.rank)}

    @property
    def has_zero(self) -> bool:
        """Coefficients are centred on 0."""
        return False

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (n, C, H, W) -> factors with the least squared error, by truncated SVD of each subspace.

        At full resolution and r = C H W the encoding is exact. Raises SettingError when n < S r.
        """
        images = images_of(self.shape, images)
        self.check_count(len(images))
        place = subspace(np.arange(len(images)), len(images), self.subspaces)
        parts = [self._encode_subspace(images[place == s]) for s in range(self.subspaces)]
        coefficients, basis, mean = (list(values) for values in zip(*parts, strict=True))
        return {"coefficients": np.concatenate(coefficients), "basis": np.stack(basis), "mean": np.stack(mean)}

    def _encode_subspace(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n_s, r), (r, C, h, w), (C, h, w). With U = Q R, U Z U^T has the error of R Z R^T against Q^T X Q."""
        (down, tall), (across, wide) = (np.linalg.qr(matrix.astype(np.float64)) for matrix in self._upsampling())
        seen = (down.T @ images @ across).reshape(len(images), -1)
        mean = seen.mean(0)
        _, _, basis = np.linalg.svd(seen - mean, full_matrices=False)
        scale = BASIS_RMS * math.sqrt(basis.shape[1])
        coefficients = (seen - mean) @ basis[: self.rank].T / scale
        pictures = np.concatenate([basis[: self.rank] * scale, mean[None]]).reshape(-1, *self.low_shape)
        low = np.linalg.inv(tall) @ pictures @ np.linalg.inv(wide).T
        return coefficients.astype(np.float32), low[:-1].astype(np.float32), low[-1].astype(np.float32)

    def _upsampling(self) -> list[np.ndarray]:
        """The matrices (H, h) and (W, w); of full resolution the identity."""
        return [bilinear(low, side) for low, side in zip(self.low_shape[1:], self.shape[1:], strict=True)]

    def decode(self, factors: Mapping[str, Any], rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice. Needs tensorly ([decode])."""
        tl = tensorly()
        coefficients, basis, mean = (factors[name] for name in ("coefficients", "basis", "mean"))

        def mixed(some: Any, s: int) -> Any:
            return tl.tenalg.mode_dot(basis[s], some, mode=0) + mean[s]

        with backend_of(tl, coefficients):
            if self.subspaces == 1:
                low = mixed(coefficients[rows], 0)
            else:
                index = index_of(rows, len(coefficients))
                place = subspace(index, len(coefficients), self.subspaces)
                low = place_by_place(tl, place, lambda s, where: mixed(coefficients[index[where]], s))
            if not self.half:
                return low
            matrices = [tl.tensor(matrix, **tl.context(low)) for matrix in self._upsampling()]
            return tl.tenalg.multi_mode_dot(low, matrices, modes=[2, 3])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rest = {"rank": self.rank, "subspaces": self.subspaces, "half": self.half, "bits": self.bits}
        return {"kind": self.kind, "shape": list(self.shape), **rest}
