"""Write the tables of README and docs/ from benchmarks/results/*.json; `--check` fails when they differ.

python benchmarks/tables.py [--check]
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from accuracy_tables import accuracy_per_byte, loss_by_part, other_students, stores
from device_tables import epoch, memory, speed
from docs_tables import continual, plan, prototyping, service
from method_tables import (
    ablations,
    cross_architecture,
    matching_speed,
    published_cells,
    trajectories,
    trajectory_speed,
)
from stored import read

ROOT = Path(__file__).parent.parent


def demo() -> str:
    """What the demo prints."""
    result = read("demo")
    lines = ["| trained on | bytes | images a class | test accuracy | trainings |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        accuracy = f"{100 * row['accuracy']:.1f} %"
        lines.append(f"| {row['what']} | {row['bytes']:,} | {row['ipc']} | {accuracy} | {row['seeds']} |")
    note = f"Digits, student {result['student']}, {result['seconds']:.0f} s in all; `{result['command']}`."
    return "\n".join([*lines, "", note])


TABLES = {"accuracy_per_byte": accuracy_per_byte, "demo": demo, "speed": speed, "memory": memory, "epoch": epoch}
DOCS = {
    "docs/device.md": {"memory": memory, "continual": continual, "prototyping": prototyping, "service": service},
    "docs/methods.md": {
        "other_students": other_students,
        "stores": stores,
        "loss_by_part": loss_by_part,
        "ablations": ablations,
        "published_cells": published_cells,
        "cross_architecture": cross_architecture,
        "matching_speed": matching_speed,
        "trajectories": trajectories,
        "trajectory_speed": trajectory_speed,
    },
    "docs/targets.md": {"plan": plan},
}


def main() -> int:
    """0 when README and docs/ hold what the results say."""
    return max(_fill(name, tables) for name, tables in {"README.md": TABLES, **DOCS}.items())


def _fill(name: str, tables: dict[str, Callable[[], str]]) -> int:
    path = ROOT / name
    text = path.read_text()
    for table, make in tables.items():
        pattern = rf"(<!-- table:{table} -->\n).*?(<!-- /table:{table} -->)"
        if not re.search(pattern, text, re.DOTALL):
            print(f"{name} has no place for the table {table}", file=sys.stderr)
            return 1
        made = make()
        text = re.sub(pattern, lambda found: f"{found[1]}{made}\n{found[2]}", text, flags=re.DOTALL)  # noqa: B023
    if "--check" not in sys.argv:
        path.write_text(text)
    elif text != path.read_text():
        print(f"{name} differs from benchmarks/results: run python benchmarks/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
