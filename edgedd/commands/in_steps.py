"""What `edgedd evaluate --continual STEPS` does and prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Steps = Annotated[int | None, typer.Option("--continual", help="classes come in so many steps: memories compared")]
COLUMNS = ("memory", "bytes", "images a class", "after the last step", "mean of steps", "forgetting")


def evaluate(
    path: Path, data: str, steps: int, students: Sequence[str] | None, *, seeds: int, seed: int, as_json: bool
) -> None:
    """Rows for every kind of memory, in as many bytes as the set has, each step's made from its images alone."""
    from edgedd.commands.output import mean_and_spread, print_json, print_table
    from edgedd.commands.progress import ProgressReport
    from edgedd.continual import continual_of

    rows: list[dict[str, Any]] = []
    with ProgressReport() as progress:

        def on_row(row: dict[str, Any], done: int, parts: int) -> None:
            rows.append(row)
            progress.report("continual", done, parts, None)

        continual_of(path, data, steps, students, seeds=range(seed, seed + seeds), on_row=on_row)
    if as_json:
        print_json(rows)
        return
    cells = []
    for memory in dict.fromkeys(row["memory"] for row in rows):
        own = [row for row in rows if row["memory"] == memory]
        shares = [mean_and_spread([row[key] for row in own]) for key in ("final", "mean", "forgetting")]
        cells.append((memory, f"{own[0]['bytes']:,}", own[0]["images"], *shares))
    print_table(f"{steps} steps, a fresh student after each, trained on the memory alone", COLUMNS, cells)
