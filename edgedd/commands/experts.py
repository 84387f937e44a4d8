"""The command `edgedd experts`."""

from pathlib import Path
from typing import Annotated

import typer


def experts(
    data: Annotated[str, typer.Option("--data", help="built-in name, .npz file, or folder of class folders")],
    count: Annotated[int, typer.Option(help="networks", min=1)],
    epochs: Annotated[int, typer.Option(help="of each: as many as a schedule reads", min=1)],
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder, new or with some of them")],
    width: Annotated[int, typer.Option(help="channels of the networks", min=1)] = 128,
    strategy: Annotated[str, typer.Option(help="augmentation: natural, digits (no mirror) or none")] = "natural",
    lr: Annotated[float, typer.Option(help="learning rate of their SGD")] = 0.01,
    half: Annotated[bool, typer.Option("--half", help="store weights in 16 bits")] = False,
    seed: Annotated[int, typer.Option(help="the same seed gives the same files", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train networks for trajectory matching (mtt, datm, lss); run again, it goes on where it was cut.

    torchrun spreads them over processes.
    """
    from edgedd.commands.progress import ProgressReport
    from edgedd.distillation.experts import experts as run
    from edgedd.distillation.ranks import speaks
    from edgedd.errors import printable

    how = {"width": width, "strategy": strategy, "lr": lr, "half": half, "seed": seed, "device": device}
    with ProgressReport() as progress:
        told = (lambda done, total: progress.report("experts", done, total)) if speaks() else None
        made = run(data, output, count=count, epochs=epochs, on_epoch=told, **how)  # type: ignore[arg-type]
    if speaks():
        print(f"{printable(str(output))}: {made.count} experts of {made.epochs} epochs, {made.stored_bytes} bytes")
