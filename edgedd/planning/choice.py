"""Which form to store images in: judged by measured accuracy at like budgets (benchmarks/sweep.py).

A budget is compared by how many uint8 images a class it would hold: what is known of 32x32 pixels and 10 classes is so
taken over to other sides and numbers of classes. Between two budgets that were measured, accuracy is read off a line
in the logarithm of the budget. Above the largest, and below the smallest of all, the nearest one counts; between
budgets, a form counts only from the smallest one that held it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgedd.errors import SettingError
from edgedd.parameterization import Parameterization, parameterization_from_dict

TABLE = Path(__file__).parent / "sweep.json"
Measured = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Candidate:
    """A form; its accuracy at the budget, None where nothing was measured; and what that judgement rests on."""

    form: Parameterization
    accuracy: float | None
    basis: str


@cache
def sweep(path: Path = TABLE) -> Mapping[str, Any]:
    """By number of channels: the data set, and forms with what was measured; empty where no sweep has been made."""
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def relative_budget(budget_bytes: int, shape: tuple[int, int, int], num_classes: int) -> float:
    """Bytes in uint8 images a class."""
    return budget_bytes / (num_classes * math.prod(shape))


def candidates(
    shape: tuple[int, int, int], num_classes: int, budget_bytes: int, table: Mapping[str, Any] | None = None
) -> list[Candidate]:
    """Every form of the sweep for images like these, the best first; none where the sweep has no such images."""
    known = (sweep() if table is None else table).get(str(shape[0]))
    if known is None:
        return []
    relative = relative_budget(budget_bytes, shape, num_classes)
    smallest = min(point[0] for form in known["forms"] for point in form["measured"])
    found = []
    for form in known["forms"]:
        accuracy, basis = judged(form["measured"], relative, smallest)
        try:
            stored = form_of(form, shape)
        except SettingError:  # images too small for these tiles or this rank
            continue
        found.append(Candidate(stored, accuracy, f"{basis} of {known['data']}"))
    return sorted(found, key=lambda c: -1.0 if c.accuracy is None else c.accuracy, reverse=True)


def judged(measured: Measured, relative: float, smallest: float) -> tuple[float | None, str]:
    """Accuracy at a relative budget from measured (relative budget, accuracy), and where it comes from."""
    points = sorted((point[0], point[1]) for point in measured)
    below = [point for point in points if point[0] <= relative]
    above = [point for point in points if point[0] >= relative]
    if below and above:
        (first, low), (second, high) = below[-1], above[0]
        if first == second:
            return low, f"measured at this budget ({first:g} uint8 images a class)"
        part = math.log(relative / first) / math.log(second / first)
        return low + part * (high - low), f"between {first:g} and {second:g} uint8 images a class"
    if below:
        return below[-1][1], f"at the largest budget measured, {below[-1][0]:g} uint8 images a class"
    if above[0][0] == smallest:
        return above[0][1], f"at the smallest budget measured, {smallest:g} uint8 images a class"
    return None, f"not measured below {above[0][0]:g} uint8 images a class"


def form_of(entry: Mapping[str, Any], shape: tuple[int, int, int]) -> Parameterization:
    """A form of the sweep for images of `shape`; ranks are fractions of the shorter side. Raises SettingError."""
    values = {key: value for key, value in entry.items() if key != "measured"} | {"shape": shape}
    if "rank" in values:
        values["rank"] = max(1, round(values["rank"] * min(shape[1:])))
    return parameterization_from_dict(values)
