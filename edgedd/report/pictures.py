"""Decoded images and factors of a set as PNGs inside a page, bounded in size whatever the set.

Letters: b pictures, n images, K classes, C channels, H and W pixels, r rank.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedd.errors import MissingExtra, printable
from edgedd.parameterization.formation import Formation
from edgedd.parameterization.low_rank import LowRank
from edgedd.parameterization.shared_basis import SharedBasis
from edgedd.report.preview import pixels
from edgedd.synthetic_set import SyntheticSet

CLASS_PIXELS = 70_000  # of all decoded images together: about 200 kB of PNG
MOST_COLUMNS, MOST_CLASSES = 10, 100
FACTOR_PIXELS = 16_000  # of one picture of factors
MOST_SUBSPACES, MOST_PLACES = 4, 8
GREY, GAP = 128, 1


@dataclass(frozen=True)
class Picture:
    """A picture in a page: `source` is a data URI, `caption` what it shows, `width` and `height` its pixels."""

    source: str
    caption: str
    width: int
    height: int


def by_class(synthetic: SyntheticSet) -> list[Picture]:
    """One strip of decoded images a class, as many as fit CLASS_PIXELS; captions are the names of the classes."""
    count = min(len(synthetic.classes), MOST_CLASSES)
    each = int(np.prod(synthetic.parameterization.shape[1:]))
    columns = max(1, min(synthetic.ipc, MOST_COLUMNS, CLASS_PIXELS // (count * each)))
    strips = []
    for k in range(count):
        shown = np.rint(255 * pixels(synthetic, np.arange(columns) + k * synthetic.ipc)).astype(np.uint8)
        strips.append(picture(grid(shown, columns), printable(synthetic.classes[k])))
    return strips


def of_factors(synthetic: SyntheticSet) -> list[Picture]:
    """What the file stores, drawn: grey is zero, brighter is positive."""
    form, factors = synthetic.parameterization, synthetic.factors
    if isinstance(form, LowRank):
        return [_cores(factors["core"], "cores"), *_mappers(factors["left"], factors["right"])]
    if isinstance(form, SharedBasis):
        return [
            _signed_grid(factors["basis"][s], f"basis pictures of subspace {s + 1} of {form.subspaces}")
            for s in range(min(form.subspaces, MOST_SUBSPACES))
        ]
    if "images" not in factors:
        return [_cores(values, name) for name, values in factors.items() if values.ndim == 4]
    tiles = f", each {form.formation} x {form.formation} images" if isinstance(form, Formation) else ""
    return [_signed_grid(factors["images"], f"stored images{tiles}")]


def soft_labels(synthetic: SyntheticSet) -> np.ndarray:
    """Mean soft label of each class's images (K, K): rows sum to 1."""
    labels = synthetic.soft_labels(slice(None))
    mean: np.ndarray = labels.reshape(len(synthetic.classes), -1, labels.shape[1]).mean(axis=1)
    return mean


def heat(matrix: np.ndarray, caption: str) -> Picture:
    """Fractions (K, K) as a square: white 0, dark 1."""
    side = max(1, 240 // len(matrix))
    shown = np.rint(255 * (1 - np.sqrt(np.clip(matrix, 0, 1)))).astype(np.uint8)
    return picture(np.kron(shown, np.ones((side, side), np.uint8)), caption)


def _cores(core: np.ndarray, name: str) -> Picture:
    """Cores (n, C, r, r) spread over the set, each coefficient over three of its own deviations."""
    spread = 3 * core.std(axis=0) + 1e-12
    caption = f"{name}, a square an image, each value scaled by its own spread"
    return _signed_grid(core / spread, caption, scale=1.0)


def _mappers(left: np.ndarray, right: np.ndarray) -> list[Picture]:
    """What each place of a core draws: the outer products of a column of L (S, H, r) and a row of R (S, r, W)."""
    found = []
    for s in range(min(len(left), MOST_SUBSPACES)):
        height, rank = left[s].shape
        shown = min(rank, MOST_PLACES)
        apart = max(1, round((shown**2 * height * right.shape[2] / FACTOR_PIXELS) ** 0.5))  # one pixel of so many
        products = np.einsum("hi,jw->ijhw", left[s, ::apart, :shown], right[s, :shown, ::apart])
        products /= np.abs(products).max(axis=(2, 3), keepdims=True) + 1e-12
        places = f"the first {shown} x {shown} of {rank} x {rank} places" if shown < rank else "each place"
        caption = f"mappers of subspace {s + 1} of {len(left)}: what {places} of a core draws"
        sheet = products.reshape(-1, 1, *products.shape[2:])
        found.append(_signed_grid(sheet, caption, scale=1.0, columns=shown))
    return found


def _signed_grid(
    values: np.ndarray, caption: str, *, scale: float | None = None, columns: int | None = None
) -> Picture:
    """Pictures (b, C, h, w) of signed values, as many as fit, spread evenly over them."""
    fitting = len(values) if columns else max(1, FACTOR_PIXELS // int(np.prod(values.shape[2:])))
    chosen = values[np.linspace(0, len(values) - 1, min(len(values), fitting)).astype(int)]
    most = float(np.quantile(np.abs(chosen), 0.995)) + 1e-12 if scale is None else scale
    shown = np.rint(np.clip(GREY + 127 * chosen / most, 0, 255)).astype(np.uint8)
    shown = shown[:, 0] if shown.shape[1] == 1 else shown.transpose(0, 2, 3, 1)
    return picture(grid(shown, columns or int(np.ceil(len(shown) ** 0.5 * 1.25))), caption)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (b, h, w) or (b, h, w, 3) row by row, a grey pixel between them."""
    count, height, width = images.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    sides = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    sheet = np.full((*sides, *images.shape[3:]), GREY, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def picture(values: np.ndarray, caption: str) -> Picture:
    """uint8 (h, w) or (h, w, 3) -> a PNG. Raises MissingExtra without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("Pillow", "a report", "distill") from error
    buffer, image = io.BytesIO(), Image.fromarray(values)
    options: dict[str, Any] = {"optimize": True}
    image.save(buffer, "PNG", **options)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(source, caption, values.shape[1], values.shape[0])
