"""A plan's budget as a picture: what takes how much of the board's memory and storage."""

import os
from typing import Any

from edgedd.planning.result import Plan
from edgedd.report.figures import figure_for, save

COLOURS = ("#5b6770", "#8d99a6", "#2f6f9f", "#4fa3d1", "#9fcbe6", "#c9a227", "#6b9e5a")
LEFT = "#eceff1"


def draw(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Two bars as wide as the board's budgets, in a PNG.

    Raises SettingError when it cannot be written, MissingExtra without matplotlib.
    """
    figure = figure_for(path, "drawing a budget", figsize=(9, 3.6), dpi=150, layout="constrained")
    memory, storage = figure.subplots(2, 1, height_ratios=(3, 2))
    form = plan.parameterization
    figure.suptitle(
        f"{plan.target}: {plan.student}, {plan.mode}, from {plan.ipc} images a class as {form.kind}, {form.bits} bits",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    _bar(memory, plan.memory.parts(), plan.process_ram_bytes, 1e6, "memory (MB)")
    _bar(storage, {"set": plan.file_bytes}, plan.storage_bytes, 1e3, "storage (kB)")
    save(figure, path)


def _bar(axes: Any, parts: dict[str, int], budget: int, unit: float, title: str) -> None:
    """One stacked bar with a legend under it; what is left of the budget is grey."""
    start = 0.0
    every = {**parts, "left": max(budget - sum(parts.values()), 0)}
    for number, (name, size) in enumerate(every.items()):
        colour = LEFT if name == "left" else COLOURS[number % len(COLOURS)]
        axes.barh(0, size / unit, left=start, color=colour, edgecolor="white", label=f"{name} {size / unit:.1f}")
        start += size / unit
    axes.set_xlim(0, start)
    axes.set_yticks([])
    axes.set_title(title, fontsize=9, loc="left")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(ncols=len(every), fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.3))
