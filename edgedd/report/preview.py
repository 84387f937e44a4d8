"""A picture of a synthetic set: decoded images, one row a class."""

import os

import numpy as np

from edgedd.parameterization import Formation
from edgedd.report.figures import figure_for, save
from edgedd.synthetic_set import SyntheticSet

MAX_COLUMNS = 20
MAX_ROWS = 40
NAMES_INCHES, TITLE_INCHES, CELL_INCHES = 1.4, 0.35, 0.62


def preview(synthetic: SyntheticSet, path: str | os.PathLike[str], columns: int = 12) -> None:
    """Write a PNG with up to `columns` images of each class, its name beside them, and what the set weighs.

    Raises:
        MissingExtra: matplotlib or tensorly is not installed.
        SettingError: the path cannot be written.
    """
    columns = max(1, min(columns, synthetic.ipc, MAX_COLUMNS))
    rows = min(len(synthetic.classes), MAX_ROWS)
    width, height = NAMES_INCHES + CELL_INCHES * columns, TITLE_INCHES + CELL_INCHES * rows
    figure = figure_for(path, "drawing a preview", figsize=(width, height), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=NAMES_INCHES / width, right=0.995, bottom=0.005, top=1 - TITLE_INCHES / height, wspace=0.06, hspace=0.06
    )
    for k, row in enumerate(axes):
        name = {"ha": "right", "va": "center", "fontsize": 8, "parse_math": False, "transform": row[0].transAxes}
        row[0].text(-0.1, 0.5, synthetic.classes[k], **name)
        for axis, image in zip(row, pixels(synthetic, np.arange(columns) + k * synthetic.ipc), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    form = synthetic.parameterization
    detail = f", rank {synthetic.rank}" if synthetic.rank else ""
    if isinstance(form, Formation):
        detail = f" {form.formation}x{form.formation}"
    title = f"{synthetic.nbytes:,} bytes: {synthetic.ipc} images a class, {form.kind}{detail}, {form.bits} bits"
    figure.text(0.5, 1 - TITLE_INCHES / height / 2, title, ha="center", va="center", fontsize=9)
    save(figure, path)


def pixels(synthetic: SyntheticSet, rows: np.ndarray) -> np.ndarray:
    """Decoded images as they would be seen: (b, H, W) or (b, H, W, 3) in [0, 1]."""
    mean, std = (synthetic.tensors[name][:, None, None] for name in ("mean", "std"))
    images = np.clip(synthetic.images(rows) * std + mean, 0, 1)
    return np.asarray(images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1))
