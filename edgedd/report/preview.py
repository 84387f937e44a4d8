"""A picture of a synthetic set: decoded images, one row a class."""

import io
import os

import numpy as np

from edgedd.atomic import write_bytes
from edgedd.errors import MissingExtra
from edgedd.synthetic_set import SyntheticSet

MAX_COLUMNS = 20
MAX_ROWS = 40


def preview(synthetic: SyntheticSet, path: str | os.PathLike[str], columns: int = 12) -> None:
    """Write a PNG with up to `columns` images of each class, its name beside them, and what the set weighs.

    Raises:
        MissingExtra: matplotlib or tensorly is not installed.
        SettingError: the path cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "drawing a preview", "distill") from error
    columns = max(1, min(columns, synthetic.ipc, MAX_COLUMNS))
    rows = min(len(synthetic.classes), MAX_ROWS)
    figure = Figure(figsize=(1.6 + 0.62 * columns, 0.7 + 0.62 * rows), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False)
    for k in range(rows):
        chosen = np.arange(columns) + k * synthetic.ipc
        for axis, image in zip(axes[k], pixels(synthetic, chosen), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
        left = axes[k][0].get_position()
        figure.text(
            1.4 / figure.get_figwidth(),
            (left.y0 + left.y1) / 2,
            synthetic.classes[k],
            ha="right",
            va="center",
            fontsize=8,
        )
    form = synthetic.parameterization
    rank = f", rank {synthetic.rank}" if synthetic.rank else ""
    title = f"{synthetic.nbytes:,} bytes: {synthetic.ipc} images a class, {form.kind}{rank}, {form.bits} bits"
    figure.suptitle(title, fontsize=9)
    figure.subplots_adjust(left=1.5 / figure.get_figwidth(), right=0.99, bottom=0.01, wspace=0.06, hspace=0.06)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def pixels(synthetic: SyntheticSet, rows: np.ndarray) -> np.ndarray:
    """Decoded images as they would be seen: (b, H, W) or (b, H, W, 3) in [0, 1]."""
    mean, std = (synthetic.tensors[name][:, None, None] for name in ("mean", "std"))
    images = np.clip(synthetic.images(rows) * std + mean, 0, 1)
    return np.asarray(images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1))
