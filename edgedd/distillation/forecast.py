"""What `auto` will come to: the nearest run that was measured (benchmarks/accuracy_over_time.py), named as such."""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "forecasts.json"


@cache
def measured(path: Path = TABLE) -> Mapping[str, Any]:
    """By number of channels: the data set, and by device bytes, minutes, validation accuracy and machine of runs."""
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def forecast(
    budget_bytes: int,
    minutes: float | None,
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    device: str = "cpu",
    table: Mapping[str, Any] | None = None,
) -> str:
    """One line: the time, and the accuracy of the run nearest in bytes per pixel and class, then in time.

    It is a measurement of other data, not a prediction of this one, and says so.
    """
    known = (measured() if table is None else table).get(str(shape[0]), {})
    usual = "about 10 minutes on two cores" if device == "cpu" else "some minutes on a GPU"
    length = usual if minutes is None else f"{minutes:g} minutes"
    if device not in known:
        channels = "1 channel" if shape[0] == 1 else f"{shape[0]} channels"
        return f"forecast: {length}; no accuracy, for nothing was measured on {device} with images of {channels}"
    pixels = num_classes * math.prod(shape)

    def distance(run: Any) -> tuple[float, float]:
        bytes_apart = abs(math.log(run[0] / known["image_bytes"] * pixels / budget_bytes))
        return round(bytes_apart, 3), abs(math.log(run[1] / (minutes or 10)))

    at_bytes, at_minutes, accuracy, machine = min(known[device], key=distance)
    return (
        f"forecast: {length}; {known['data']} came to {accuracy:.1%} at {at_bytes:,} bytes in {at_minutes:g} minutes "
        f"({known['student']}, validation images, {machine}); other images and machines differ"
    )
