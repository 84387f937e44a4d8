"""Results that a report is given: what `edgedd evaluate --json` and `edgedd try --json` printed."""

import math
import os
from collections.abc import Mapping
from typing import Any

from edgedd.errors import SettingError
from edgedd.json_file import read_json

MAX_BYTES, MAX_ROWS = 2**20, 500
WANTED = "wanted what `edgedd evaluate --json` or `edgedd try --json` printed"
NAMES = ("trained_on", "what", "name", "student")
OURS = "synthetic set"  # what `evaluate --baselines` says of the set's own rows
Row = dict[str, Any]


def read_results(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a file: name, student, accuracy and spread (fractions), bytes, seconds and peak_bytes (None if not told).

    `of_set` tells rows of the set from those of baselines, `short` is a name for pictures. Raises SettingError for
    something else.
    """
    values = read_json(path, MAX_BYTES, WANTED)
    rows = values.get("rows") if isinstance(values, dict) else values
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ROWS:
        raise SettingError(f"{path} has no list of rows, {WANTED}")
    found = [_row(row) for row in rows if not (isinstance(row, dict) and "error" in row)]
    if None in found or not found:
        raise SettingError(f"{path} has a row without an accuracy in [0, 1], {WANTED}")
    return [row for row in found if row is not None]


def _row(row: Any) -> Row | None:
    if not isinstance(row, Mapping) or not _number(row.get("accuracy"), 1):
        return None
    name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), "")
    student = row["student"] if isinstance(row.get("student"), str) else ""
    numbers = {key: row.get(key) if _number(row.get(key), 1e15) else None for key in ("bytes", "seconds", "peak_bytes")}
    spread = row["spread"] if _number(row.get("spread"), 1) else 0.0
    short = row["storage"] if isinstance(row.get("storage"), str) else name
    found = {"name": name, "short": short, "student": student, "accuracy": row["accuracy"], "spread": spread}
    return {**found, **numbers, "of_set": name in (student, OURS)}


def _number(value: Any, most: float) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= most
    )
