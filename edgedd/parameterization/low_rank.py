"""Images as cores under shared dimension mappers; letters as in edgedd.parameterization."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgedd.errors import SettingError
from edgedd.parameterization.stored_images import Shape, by, check_stored, images_of, whole
from edgedd.parameterization.subspaces import backend_of, check_subspaces, index_of, place_by_place, subspace, tensorly


@dataclass(frozen=True)
class LowRank:
    """Two-sided Tucker in S subspaces: image i, channel c = L_s K_i,c R_s (MTT-LSS, Kong et al. 2025, our reading).

    Factors: `core` (n, C, r, r), the "basis vectors", in few bits; `left` (S, H, r) and `right` (S, r, W), the
    "dimension mappers" shared by all images of a subspace, in 16 bits. Image i of n lies in subspace floor(i S / n).
    """

    shape: Shape
    rank: int
    subspaces: int = 1
    bits: int = 8
    kind: ClassVar[str] = "low_rank"
    per_stored: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_stored(self.shape, self.bits)
        most = min(self.shape[1:])
        if not whole(self.rank) or not 1 <= self.rank <= most:
            raise SettingError(f"rank={self.rank!r}, wanted a whole number in [1, {most}] for {by(self.shape)} images")
        check_subspaces(self.subspaces)

    @property
    def least_count(self) -> int:
        """One image a subspace."""
        return self.subspaces

    def check_count(self, count: int) -> None:
        """Raises SettingError when there are fewer images than subspaces."""
        if count < self.subspaces:
            raise SettingError(f"{count} images for {self.subspaces} subspaces, wanted at least one a subspace")

    def factor_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of each factor for `count` images."""
        channels, height, width = self.shape
        return {
            "core": (count, channels, self.rank, self.rank),
            "left": (self.subspaces, height, self.rank),
            "right": (self.subspaces, self.rank, width),
        }

    def scale_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of the scale of each quantised factor: one a coefficient of the core, shared by all images."""
        return {} if self.bits == 16 else {"core": (1, self.shape[0], self.rank, self.rank)}

    @property
    def has_zero(self) -> bool:
        """Cores are centred on 0."""
        return False

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (n, C, H, W) -> factors with the least squared error that HOSVD finds, a subspace at a time.

        Mappers come out orthonormal; at r = H = W the encoding is exact. Raises SettingError when n < S.
        """
        images = images_of(self.shape, images)
        self.check_count(len(images))
        core = np.empty(self.factor_shapes(len(images))["core"], np.float32)
        left, right = [], []
        place = self.subspace(np.arange(len(images)), len(images))
        for s in range(self.subspaces):
            chosen = place == s
            core[chosen], (l_s, r_s) = _partial_tucker(images[chosen], self.rank)
            left.append(l_s)
            right.append(np.ascontiguousarray(r_s.T))
        return {"core": core, "left": np.stack(left), "right": np.stack(right)}

    def subspace(self, rows: Any, count: int) -> Any:
        """The subspace of each row of a set of `count` images."""
        return subspace(rows, count, self.subspaces)

    def decode(self, factors: Mapping[str, Any], rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice. Needs tensorly ([decode])."""
        tl = tensorly()
        core, left, right = factors["core"], factors["left"], factors["right"]

        def mapped(some: Any, s: int) -> Any:
            return tl.tenalg.multi_mode_dot(some, [left[s], right[s].T], modes=[2, 3])

        with backend_of(tl, core):
            if self.subspaces == 1:
                return mapped(core[rows], 0)
            index = index_of(rows, len(core))
            place = self.subspace(index, len(core))
            return place_by_place(tl, place, lambda s, where: mapped(core[index[where]], s))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rest = {"rank": self.rank, "subspaces": self.subspaces, "bits": self.bits}
        return {"kind": self.kind, "shape": list(self.shape), **rest}


def _partial_tucker(images: np.ndarray, rank: int) -> tuple[np.ndarray, list[np.ndarray]]:
    tl = tensorly()
    from tensorly.decomposition import partial_tucker

    with backend_of(tl, images):
        (core, factors), _ = partial_tucker(images, rank=[rank, rank], modes=[2, 3], init="svd", n_iter_max=10)
    return core.astype(np.float32), [f.astype(np.float32) for f in factors]
