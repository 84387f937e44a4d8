"""How synthetic images are stored: as pixels, or as cores under shared dimension mappers.

Letters: n stored images, C channels, H and W pixels, r rank, S subspaces, b rows asked for. A factor is an array with
a name; `decode` runs under numpy and under torch alike, written in tensorly calls, and is differentiable under torch.
The training graph repeats the same contraction (edgedd.exporting.decode).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgedd.errors import MissingExtra, SettingError
from edgedd.quantize import BITS

MAX_SIDE = 96
MIN_SIDE = 8
Factors = Mapping[str, Any]


@dataclass(frozen=True)
class Pixels:
    """Images stored as themselves: factor `images` (n, C, H, W)."""

    shape: tuple[int, int, int]
    bits: int = 8
    kind: ClassVar[str] = "pixels"

    def __post_init__(self) -> None:
        _check(self.shape, self.bits)

    def factor_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of each factor for `count` images."""
        return {"images": (count, *self.shape)}

    def scale_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of the scale (and zero) of each quantised factor: one a channel."""
        return {} if self.bits == 16 else {"images": (1, self.shape[0], 1, 1)}

    @property
    def has_zero(self) -> bool:
        """Pixels are not centred on 0, so their codes carry a zero beside the scale."""
        return True

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (n, C, H, W) -> factors; exact."""
        return {"images": _images_of(self.shape, images)}

    def decode(self, factors: Factors, rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice."""
        return factors["images"][rows]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, "shape": list(self.shape), "bits": self.bits}


@dataclass(frozen=True)
class LowRank:
    """Two-sided Tucker in S subspaces: image i, channel c = L_s K_i,c R_s (MTT-LSS, Kong et al. 2025, our reading).

    Factors: `core` (n, C, r, r), the "basis vectors", in few bits; `left` (S, H, r) and `right` (S, r, W), the
    "dimension mappers" shared by all images of a subspace, in 16 bits. Image i of n lies in subspace floor(i S / n):
    in class-major order, neighbouring classes share a subspace and S = K gives each class its own.
    """

    shape: tuple[int, int, int]
    rank: int
    subspaces: int = 1
    bits: int = 8
    kind: ClassVar[str] = "low_rank"

    def __post_init__(self) -> None:
        _check(self.shape, self.bits)
        most = min(self.shape[1:])
        if not _whole(self.rank) or not 1 <= self.rank <= most:
            raise SettingError(
                f"rank={self.rank!r}, wanted a whole number in [1, {most}] for {_text(self.shape)} images"
            )
        if not _whole(self.subspaces) or not 1 <= self.subspaces <= 65_536:
            raise SettingError(f"subspaces={self.subspaces!r}, wanted a whole number in [1, 65536]")

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
        images = _images_of(self.shape, images)
        if len(images) < self.subspaces:
            raise SettingError(f"{len(images)} images for {self.subspaces} subspaces, wanted at least one a subspace")
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
        return rows * self.subspaces // count

    def decode(self, factors: Factors, rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice. Needs tensorly ([decode])."""
        tl = _tensorly()
        core, left, right = factors["core"], factors["left"], factors["right"]
        count = len(core)
        with tl.backend_context("numpy" if isinstance(core, np.ndarray) else "pytorch", local_threadsafe=True):
            if self.subspaces == 1:
                return tl.tenalg.multi_mode_dot(core[rows], [left[0], right[0].T], modes=[2, 3])
            index = np.arange(count)[rows if isinstance(rows, slice) else np.asarray(rows)]
            place = self.subspace(index, count)
            order = np.argsort(place, kind="stable")
            parts = [
                tl.tenalg.multi_mode_dot(core[index[place == s]], [left[s], right[s].T], modes=[2, 3])
                for s in (np.unique(place) if len(place) else [0])
            ]
            return tl.concatenate(parts, axis=0)[np.argsort(order, kind="stable")]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rest = {"rank": self.rank, "subspaces": self.subspaces, "bits": self.bits}
        return {"kind": self.kind, "shape": list(self.shape), **rest}


Parameterization = Pixels | LowRank
PARAMETERIZATIONS: dict[str, type[Pixels] | type[LowRank]] = {"pixels": Pixels, "low_rank": LowRank}


def parameterization_from_dict(values: Mapping[str, Any]) -> Parameterization:
    """The inverse of `as_dict`. Raises SettingError for an unknown kind, key or value."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in PARAMETERIZATIONS:
        raise SettingError(f"parameterization kind={kind!r}, wanted one of {', '.join(PARAMETERIZATIONS)}")
    wanted = {"low_rank": {"shape", "rank", "subspaces", "bits"}, "pixels": {"shape", "bits"}}[kind]
    given = set(values) - {"kind"}
    if given != wanted:
        odd = ", ".join(sorted(given ^ wanted))
        raise SettingError(f"parameterization {kind} has unknown or missing keys ({odd}), wanted {sorted(wanted)}")
    shape = values["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise SettingError(f"parameterization shape={shape!r}, wanted [channels, height, width]")
    rest = {key: values[key] for key in wanted - {"shape"}}
    return PARAMETERIZATIONS[kind](shape=(shape[0], shape[1], shape[2]), **rest)


def _partial_tucker(images: np.ndarray, rank: int) -> tuple[np.ndarray, list[np.ndarray]]:
    tl = _tensorly()
    from tensorly.decomposition import partial_tucker

    with tl.backend_context("numpy", local_threadsafe=True):
        (core, factors), _ = partial_tucker(images, rank=[rank, rank], modes=[2, 3], init="svd", n_iter_max=10)
    return core.astype(np.float32), [f.astype(np.float32) for f in factors]


def _tensorly() -> Any:
    try:
        import tensorly
    except ImportError as error:
        raise MissingExtra("tensorly", "encoding or decoding low-rank images in Python", "decode") from error
    return tensorly


def _images_of(shape: tuple[int, int, int], images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.shape[1:] != shape:
        raise SettingError(f"images of shape {images.shape}, wanted (n, {', '.join(map(str, shape))})")
    return np.asarray(images, np.float32)


def _check(shape: tuple[int, int, int], bits: int) -> None:
    if len(shape) != 3 or not all(_whole(side) for side in shape):
        raise SettingError(f"image shape {shape!r}, wanted three whole numbers: channels, height, width")
    if shape[0] not in (1, 3) or not all(MIN_SIDE <= side <= MAX_SIDE for side in shape[1:]):
        raise SettingError(
            f"image shape {_text(shape)}, wanted 1 or 3 channels and sides of {MIN_SIDE}..{MAX_SIDE} pixels"
        )
    if not _whole(bits) or bits not in BITS:
        raise SettingError(f"bits={bits!r}, wanted one of {', '.join(map(str, BITS))}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
