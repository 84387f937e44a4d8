"""Accuracy over bytes as a picture: synthetic sets, the best of each kind of real images, published points."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgedd.report.figures import figure_for, save

OURS = "synthetic set"
BLUES = ("#1f4e79", "#6f9fc8", "#a9c6de")  # of our sets, a student each
COLOURS = {
    "webp": "#c9622f",
    "jpeg": "#c9a227",
    "down-scaled": "#6b9e5a",
    "2-bit": "#4fa3d1",
    "4-bit": "#8d7bb5",
    "uint8": "#8d99a6",
}
MARKERS = {"webp": "s", "jpeg": "D", "down-scaled": "v", "2-bit": "P", "4-bit": "X", "uint8": "^"}
NEAR = 1.3  # points whose bytes differ by less share a column of names
LINE = 1.6  # points of accuracy that a name takes
Row = Mapping[str, Any]


def draw(rows: Sequence[Row], published: Sequence[Row], path: str | os.PathLike[str], data: str) -> None:
    """Write a PNG: test accuracy (%, mean and sample deviation) over bytes, on a logarithmic axis.

    `rows` are those of `edgedd.baselines.comparison`, drawn as a line a student and way of storing; `published` have
    name, bytes, accuracy: their bytes as the papers count them, their student the papers' ConvNet of width 128. They
    stand apart in grey.

    Raises SettingError when it cannot be written, MissingExtra without matplotlib.
    """
    figure = figure_for(path, "drawing accuracies", figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    students = sorted({row["student"] for row in rows})
    for student, blue in zip(students, itertools.cycle(BLUES)):
        theirs, of = [row for row in rows if row["student"] == student], f", {student}" if students[1:] else ""
        ours = [row for row in theirs if row["trained_on"] == OURS]
        _line(axes, ours, OURS + of, color=blue, marker="o", linewidth=2.2)
        for name, colour in COLOURS.items():
            mine = [row for row in theirs if row.get("storage") == name]
            _line(axes, mine, f"real images: {name}{of}", color=colour, marker=MARKERS[name], linewidth=1.2)
    _published(axes, published)
    every = sorted({row["bytes"] for row in (*rows, *published)})
    axes.set_xscale("log")
    if every:
        axes.set_xlim(every[0] / 1.3, every[-1] * 2)
        ticks = [2.0**k * 1000 for k in range(0, 12) if every[0] / 1.3 <= 2.0**k * 1000 <= every[-1] * 2]
        axes.set_xticks(ticks, [f"{tick / 1000:g} kB" for tick in ticks])
        axes.minorticks_off()
    whose = f" of {students[0]}" if len(students) == 1 else ""
    axes.set_title(f"{data}: test accuracy{whose} by bytes shipped", fontsize=11, loc="left")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(color="#eceff1")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def _line(axes: Any, rows: Sequence[Row], label: str, *, color: str, marker: str, linewidth: float) -> None:
    """Points with error bars, joined in the order of their bytes."""
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["bytes"])
    sizes = [row["bytes"] for row in rows]
    means, spreads = (100 * np.array([row[key] for row in rows]) for key in ("accuracy", "spread"))
    style: dict[str, Any] = {"color": color, "marker": marker, "linewidth": linewidth, "markersize": 5, "capsize": 3}
    axes.errorbar(sizes, means, yerr=spreads, label=label, zorder=3, **style)


def _published(axes: Any, points: Sequence[Row]) -> None:
    """Hollow grey points with their names beside them, moved apart where they would overlap."""
    if not points:
        return
    sizes, means = [p["bytes"] for p in points], [100 * p["accuracy"] for p in points]
    label = "published (papers' bytes,\nConvNet of width 128)"
    axes.scatter(sizes, means, facecolors="none", edgecolors="#5b6770", s=26, label=label, zorder=2)
    for point in points:
        near = [p for p in points if 1 / NEAR < p["bytes"] / point["bytes"] < NEAR]
        below = sorted(p["accuracy"] for p in near if p["accuracy"] <= point["accuracy"])
        height = 0.0
        for accuracy in below:
            height = max(100 * accuracy, height + LINE)
        place = (1.05 * max(p["bytes"] for p in near), height)
        at = (point["bytes"], 100 * point["accuracy"])
        axes.annotate(point["name"], at, place, fontsize=7, color="#5b6770", va="center")
