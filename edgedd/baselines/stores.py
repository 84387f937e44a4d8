"""Every way to store real images, and the settings among which validation chooses.

`encode` turns uint8 images (n, C, H, W) into bytes, `decode` those bytes into images of the same shape. No bytes are
left uncounted: levels, tables and lengths are all inside.
"""

from edgedd.baselines.coded import Coded
from edgedd.baselines.levels import Levels, Shape
from edgedd.errors import FormatError

QUALITIES = {"jpeg": (6, 10, 18, 30, 45), "webp": (1, 6, 14, 28, 45)}
Store = Levels | Coded


def stores(shape: Shape) -> dict[str, tuple[Store, ...]]:
    """Every kind of storage of images (C, H, W), and the settings among which validation chooses."""
    full = shape[1:]
    smaller = _smaller(full)
    down = tuple(Levels(bits, *size) for size in smaller for bits in (8, 4))
    found: dict[str, tuple[Store, ...]] = {
        "uint8": (Levels(8, *full),),
        "4-bit": (Levels(4, *full),),
        "2-bit": (Levels(2, *full),),
        "down-scaled": down,
    }
    for codec, qualities in QUALITIES.items():
        found[codec] = tuple(Coded(codec, quality, *size) for size in (full, *smaller) for quality in qualities)
    return found


def store_from(values: dict[str, int | str]) -> Store:
    """The inverse of `dataclasses.asdict` of a store. Raises FormatError."""
    try:
        return Coded(**values) if "codec" in values else Levels(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise FormatError(f"a store with unknown or missing keys ({', '.join(values)}): the file is damaged") from error


def _smaller(full: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Three quarters and half of the sides, in whole blocks of 8 where the images are larger than that."""
    found = []
    for part in (0.75, 0.5):
        size = tuple(max(4, round(side * part / 8) * 8 if side > 16 else round(side * part)) for side in full)
        if size not in found and all(s < f for s, f in zip(size, full, strict=True)):
            found.append((size[0], size[1]))
    return tuple(found)
