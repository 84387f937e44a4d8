"""Results as they are stored: benchmarks/results/*.json."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> dict[str, Any]:
    """The one of this name."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def read_all(prefix: str) -> list[dict[str, Any]]:
    """All whose names begin so, in the order of their names."""
    return [read(path.stem) for path in sorted(RESULTS.glob(f"{prefix}*.json"))]
