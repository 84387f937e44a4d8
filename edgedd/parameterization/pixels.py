"""Images stored as themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgedd.parameterization.stored_images import Shape, check_stored, images_of


@dataclass(frozen=True)
class Pixels:
    """Images stored as themselves: factor `images` (n, C, H, W)."""

    shape: Shape
    bits: int = 8
    kind: ClassVar[str] = "pixels"
    per_stored: ClassVar[int] = 1
    least_count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_stored(self.shape, self.bits)

    def check_count(self, count: int) -> None:
        """Any number of images can be stored."""

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
        return {"images": images_of(self.shape, images)}

    def decode(self, factors: Mapping[str, Any], rows: Any) -> Any:
        """Images (b, C, H, W) of the `rows`: an index array or a slice."""
        return factors["images"][rows]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, "shape": list(self.shape), "bits": self.bits}
