"""The command `edgedd report`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="SET|BUNDLE", help="a synthetic set, or a bundle")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the page to write (.html)")],
    data: Annotated[str | None, typer.Option("--data", help="test images, for accuracy class by class")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="what `evaluate --json` or `try --json` printed; again for more")
    ] = None,
    student: Annotated[str | None, typer.Option(help="which is trained; the bundle's first, or what suits")] = None,
    target: Annotated[str | None, typer.Option(help="the board whose memory is shown")] = None,
    train: Annotated[bool, typer.Option("--train/--no-train", help="train once here, for curves and accuracy")] = True,
    seed: Annotated[int, typer.Option(help="of that training", min=0)] = 0,
) -> None:
    """One self-contained HTML page about a set or a bundle: images, factors, accuracy, memory, learning curves."""
    from edgedd.commands.output import spoken_command
    from edgedd.commands.progress import ProgressReport
    from edgedd.errors import printable
    from edgedd.report.page import write_report

    how: dict[str, Any] = {"data": data, "results": results or (), "student": student, "target": target}
    how |= {"train": train, "seed": seed, "command": spoken_command(sys.argv)}
    with ProgressReport() as progress:
        size = write_report(run, output, on_step=progress.report, **how)
    print(printable(f"{output}: {size:,} bytes"))
