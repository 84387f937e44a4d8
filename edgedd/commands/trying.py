"""The command `edgedd try`."""

from typing import Annotated, Any

import typer

from edgedd.commands.bundles import BundlePath, Json
from edgedd.errors import printable


def try_(
    bundle: BundlePath,
    minutes: Annotated[float, typer.Option(help="time for all students together", min=0.05)],
    data: Annotated[str | None, typer.Option("--data", help="test images; else rows of the set are held out")] = None,
    seed: Annotated[int, typer.Option(help="of starts, orders, and of what is held out", min=0)] = 0,
    threads: Annotated[int | None, typer.Option(help="processor threads", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Train every student of a bundle here, from its synthetic set, and rank them: accuracy, seconds, peak memory."""
    from edgedd.commands.output import print_json
    from edgedd.commands.progress import ProgressReport
    from edgedd.device.trying import try_students

    with ProgressReport() as progress:
        result = try_students(bundle, minutes, data, seed=seed, threads=threads, on_step=progress.report)
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    from edgedd.commands.output import percent, print_table

    rows: list[tuple[Any, ...]] = []
    for row in result["rows"]:
        if "error" in row:
            rows.append((row["student"], row["error"], "", "", "", ""))
            continue
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        cells = (row["steps"], f"{row['seconds']:.1f}", peak, f"{row['parameters']:,}")
        rows.append((row["student"], percent(row["accuracy"]), *cells))
    print_table("", ("student", "accuracy", "steps", "seconds", "peak MB", "parameters"), rows)
    shortened = "" if result["steps"] == result["recipe_steps"] else f" of the recipe's {result['recipe_steps']}"
    print(printable(f"{result['steps']} steps{shortened} each, to end within {result['minutes']:g} min"))
    print(printable(f"tested on {result['test_images']} images: {result['tested_on']}"))
    if any(row.get("steps", result["steps"]) < result["steps"] for row in result["rows"]):
        print("a student with fewer steps was stopped: its time was up before its learning rate had fallen")
