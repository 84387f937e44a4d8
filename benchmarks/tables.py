"""Write the tables of README and docs/ from benchmarks/results/*.json; `--check` fails when they differ.

python benchmarks/tables.py [--check]
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accuracy_tables import accuracy_per_byte
from device_tables import epoch, memory, speed
from docs_tables import ablations, continual, plan, prototyping, service
from stored import read, read_all

ROOT = Path(__file__).parent.parent


def accuracy() -> str:
    """One line a data set and method."""
    lines = [
        "| data | trained on | file bytes | images a class | test accuracy | trainings | time to distil |",
        "|---|---|---|---|---|---|---|",
    ]
    notes = []
    results = read_all("real_images_")
    for result in results:
        lines += [_line(result, row) for row in result["rows"]]
        notes.append(f"`{result['command']}` on {result['cores']} cores of {result['processor']}")
    student = results[-1]["rows"][0]["student"]
    notes_text = " and ".join(notes)
    about = f"Student {student}, mean and sample deviation over trainings. Made by {notes_text}."
    return "\n".join([*lines, "", about])


def _line(result: dict[str, Any], row: dict[str, Any]) -> str:
    ours = f"**synthetic set** ({row['method']})"
    what = "random real images, teacher labels" if row["method"] == "random" else ours
    spread = f" ± {100 * row['spread']:.1f}" if len(row["accuracies"]) > 1 else ""
    minutes = f"{row['distil_seconds'] / 60:.1f} min"
    return (
        f"| {result['data']['name']} | {what} | {row['bytes']:,} | {row['ipc']} "
        f"| {100 * row['accuracy']:.1f}{spread} % | {len(row['accuracies'])} | {minutes} |"
    )


def demo() -> str:
    """What the demo prints."""
    result = read("demo")
    lines = ["| trained on | bytes | images a class | test accuracy | trainings |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        accuracy = f"{100 * row['accuracy']:.1f} %"
        lines.append(f"| {row['what']} | {row['bytes']:,} | {row['ipc']} | {accuracy} | {row['seeds']} |")
    note = f"Digits, student {result['student']}, {result['seconds']:.0f} s in all; `{result['command']}`."
    return "\n".join([*lines, "", note])


TABLES = {"accuracy": accuracy, "demo": demo, "speed": speed, "memory": memory, "epoch": epoch}
DOCS = {
    "docs/device.md": {"memory": memory, "continual": continual, "prototyping": prototyping, "service": service},
    "docs/methods.md": {"accuracy": accuracy, "accuracy_per_byte": accuracy_per_byte, "ablations": ablations},
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
