"""Random image transformations as data: drawn in numpy anywhere, applied inside a graph or under torch.

One draw gives, per image, an affine map of sampling positions, a cutout square and three colour factors. The device
feeds these small arrays to its training graph; the server applies the same arrays with torch. All families that
are listed act together, with parameters drawn per image.
"""

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from edgedd.errors import SettingError


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the families; 0 switches a family off.

    Attributes:
        flip: probability of a left-right mirror, in [0, 1].
        shift: largest translation in whole pixels, along each side, filled with zeros (the data's mean).
        scale: sides are stretched by factors log-uniform in [1/(1+scale), 1+scale], each side on its own.
        rotate: largest rotation in degrees, to either side.
        cutout: side of a square set to zero, as a fraction of the image's sides.
        colour: strength of brightness, saturation and contrast changes; 1 is the usual strength of DSA
            (Zhao and Bilen 2021): brightness within 0.5, saturation within [0, 2], contrast within [0.5, 1.5].
    """

    flip: float = 0.0
    shift: int = 0
    scale: float = 0.0
    rotate: float = 0.0
    cutout: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        limits = {"flip": 1.0, "shift": 48, "scale": 1.0, "rotate": 180.0, "cutout": 1.0, "colour": 1.0}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value <= limit):
                raise SettingError(f"augmentation {name}={value!r}, wanted a number in [0, {limit:g}]")
        if int(self.shift) != self.shift:
            raise SettingError(f"augmentation shift={self.shift!r}, wanted whole pixels")

    @property
    def moves(self) -> bool:
        """Whether pixels change place (the affine map is not the identity)."""
        return bool(self.flip or self.shift or self.scale or self.rotate)

    def as_dict(self) -> dict[str, float]:
        """Only the families that are switched on."""
        return {name: value for name, value in asdict(self).items() if value}


class Draw(NamedTuple):
    """Parameters for b images. Positions are in [-1, 1], x to the right, y down.

    affine: (b, 2, 3) output position -> input position.  cutout: (b, 4) centre x, centre y, half width, half height
    (0, 0 half sides: none).  colour: (b, 3) brightness offset, saturation factor, contrast factor (0, 1, 1: none).
    """

    affine: np.ndarray
    cutout: np.ndarray
    colour: np.ndarray


def draw(augmentation: Augmentation, count: int, height: int, width: int, generator: np.random.Generator) -> Draw:
    """Draw the parameters of `count` images of `height` x `width` pixels."""
    a = augmentation
    uniform = generator.uniform
    mirror = np.where(generator.random(count) < a.flip, -1.0, 1.0)
    stretch = np.exp(uniform(-1, 1, (count, 2)) * math.log1p(a.scale))
    angle = np.deg2rad(uniform(-1, 1, count) * a.rotate)
    moved = generator.integers(-int(a.shift), int(a.shift) + 1, (count, 2))
    cos, sin = np.cos(angle), np.sin(angle)
    affine = np.zeros((count, 2, 3), np.float32)
    affine[:, 0, 0] = mirror * cos * stretch[:, 0]
    affine[:, 0, 1] = mirror * -sin * stretch[:, 1] * height / width
    affine[:, 1, 0] = sin * stretch[:, 0] * width / height
    affine[:, 1, 1] = cos * stretch[:, 1]
    affine[:, 0, 2] = moved[:, 0] * 2.0 / width
    affine[:, 1, 2] = moved[:, 1] * 2.0 / height
    cutout = np.zeros((count, 4), np.float32)
    cutout[:, :2] = uniform(-1, 1, (count, 2))
    cutout[:, 2:] = a.cutout
    colour = np.empty((count, 3), np.float32)
    colour[:, 0] = uniform(-0.5, 0.5, count) * a.colour
    colour[:, 1] = 1 + uniform(-1, 1, count) * a.colour
    colour[:, 2] = 1 + uniform(-0.5, 0.5, count) * a.colour
    return Draw(affine, cutout, colour)


def unchanged(count: int) -> Draw:
    """The draw that leaves `count` images as they are."""
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    colour = np.tile(np.array([0, 1, 1], np.float32), (count, 1))
    # Outside the image, so that no pixel's centre is cut out.
    cutout = np.tile(np.array([9, 9, 0, 0], np.float32), (count, 1))
    return Draw(affine, cutout, colour)
