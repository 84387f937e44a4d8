"""What `edgedd train` says and takes when there are new images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedd.errors import SettingError, printable

NewDataPath = Annotated[Path | None, typer.Option(help="new images: a folder of class folders, or .npz")]
StartWeights = Annotated[Path | None, typer.Option(help="with --new-data: weights that learning starts from")]
StateFile = Annotated[Path | None, typer.Option(help="with --new-data: keeps new images for the next time")]
Ratio = Annotated[float | None, typer.Option(help="with --new-data: share of new images in a batch")]
BufferBytes = Annotated[int | None, typer.Option(help="with --new-data: of new images that are kept")]
ROWS = {"old": "old classes", "new": "new classes", "image": "new images"}


def train(bundle: Path, output: Path, new: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """`train_bundle`, or `rehearse_bundle` where there is new data. Raises SettingError for options that need it."""
    if new["path"] is None:
        given = [name for name, value in new.items() if value is not None]
        if given:
            option = {"state": "rehearsal"}.get(given[0], given[0]).replace("_", "-")
            raise SettingError(f"--{option} is for --new-data: give new images, or leave it out")
        from edgedd.evaluation import train_bundle

        return train_bundle(bundle, output, **how)
    from edgedd.rehearsing import NewData, rehearse_bundle

    return rehearse_bundle(bundle, output, NewData(**new), **how)


def print_row(row: Mapping[str, Any], as_json: bool) -> None:
    """Of `train`, with or without new data."""
    from edgedd.commands.output import percent, print_table, print_training

    if as_json or "new_classes" not in row:
        print_training(row, as_json)
        return
    cells = []
    for key, title in ROWS.items():
        change = row["accuracy"][key]
        if change["count"]:
            cells.append((title, percent(change["before"]), percent(change["after"]), change["count"]))
    title = f"{row['student']}: {row['steps']} steps in {row['seconds']:.1f} s, kept those of step {row['best_step']}"
    print_table(title, ("accuracy on", "before", "after", "images"), cells)
    if row["new_classes"]:
        print(printable(f"new classes: {', '.join(row['new_classes'])}"))
    print(f"{row['buffer']['images']} new images in {row['buffer']['bytes']:,} bytes")
    print(printable(row["weights"]))
