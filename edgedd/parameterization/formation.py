"""f x f small images in each stored one: "multi-formation" (Kim et al. 2022, IDC; Zhao et al. 2023, IDM: f = 2)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgedd.errors import SettingError
from edgedd.parameterization.interpolation import bilinear
from edgedd.parameterization.stored_images import Shape, by, check_stored, images_of, whole
from edgedd.parameterization.subspaces import backend_of, index_of, place_by_place, tensorly

LEAST_TILE = 4


@dataclass(frozen=True)
class Formation:
    """A stored image is cut into f x f tiles, each of which is upsampled bilinearly to (H, W).

    Factor: `images` (n / f^2, C, H, W). Image i of n is tile i mod f^2, counted row by row, of stored image
    floor(i / f^2). Where f does not divide a side, its first tiles are a pixel longer than the rest: the sizes of IDC's
    initialisation (its decoder pads with grey, which the tiles at the edge would show).
    """

    shape: Shape
    formation: int = 2
    bits: int = 8
    kind: ClassVar[str] = "formation"

    def __post_init__(self) -> None:
        check_stored(self.shape, self.bits)
        most = min(self.shape[1:]) // LEAST_TILE
        if not whole(self.formation) or not 2 <= self.formation <= most:
            raise SettingError(
                f"formation={self.formation!r}, wanted a whole number in [2, {most}]: tiles of {by(self.shape)} images "
                f"have sides of at least {LEAST_TILE} pixels"
            )

    @property
    def per_stored(self) -> int:
        """f^2 images are stored as one."""
        return self.formation**2

    @property
    def least_count(self) -> int:
        """One stored image."""
        return self.per_stored

    def check_count(self, count: int) -> None:
        """Raises SettingError for a number of images that does not fill the stored ones."""
        if count % self.per_stored:
            raise SettingError(f"{count} images, wanted a multiple of {self.per_stored}: so many are stored as one")

    def factor_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of each factor for `count` images."""
        self.check_count(count)
        return {"images": (count // self.per_stored, *self.shape)}

    def scale_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shape of the scale (and zero) of each quantised factor: one a channel."""
        return {} if self.bits == 16 else {"images": (1, self.shape[0], 1, 1)}

    @property
    def has_zero(self) -> bool:
        """Pixels are not centred on 0, so their codes carry a zero beside the scale."""
        return True

    def tiles(self, side: int) -> list[slice]:
        """The f tiles along a side of so many pixels."""
        size, longer = divmod(side, self.formation)
        ends = np.cumsum([0] + [size + (k < longer) for k in range(self.formation)]).tolist()
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (n, C, H, W) -> the tiles that give the least squared error; exact for images that were upsampled."""
        images = images_of(self.shape, images)
        stored = np.empty(self.factor_shapes(len(images))["images"], np.float32)
        rows, columns = (self.tiles(side) for side in self.shape[1:])
        for q in range(self.per_stored):
            y, x = rows[q // self.formation], columns[q % self.formation]
            down, across = (
                np.linalg.pinv(bilinear(tile.stop - tile.start, side).astype(np.float64))
                for tile, side in zip((y, x), self.shape[1:], strict=True)
            )
            stored[:, :, y, x] = down @ images[q :: self.per_stored] @ across.T
        return {"images": stored}

    def decode(self, factors: Mapping[str, Any], rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice. Needs tensorly ([decode])."""
        tl = tensorly()
        images = factors["images"]
        tall, wide = (self.tiles(side) for side in self.shape[1:])
        index = index_of(rows, len(images) * self.per_stored)

        def upsampled(q: int, where: np.ndarray) -> Any:
            y, x = tall[q // self.formation], wide[q % self.formation]
            matrices = [
                tl.tensor(bilinear(tile.stop - tile.start, side), **tl.context(images))
                for tile, side in zip((y, x), self.shape[1:], strict=True)
            ]
            tile = images[:, :, y, x][index[where] // self.per_stored]
            return tl.tenalg.multi_mode_dot(tile, matrices, modes=[2, 3])

        with backend_of(tl, images):
            return place_by_place(tl, index % self.per_stored, upsampled)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, "shape": list(self.shape), "formation": self.formation, "bits": self.bits}
