"""The command `edgedd tune`."""

from pathlib import Path
from typing import Annotated, Any

import typer


def tune(
    path: Annotated[Path, typer.Argument(metavar="SET", help="a synthetic set")],
    data: Annotated[str, typer.Option("--data", help="what the set came from: name, .npz file, or folder of folders")],
    student: Annotated[str, typer.Option(help="who will train on it, such as resnet8 or convnet3-w128")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the set to write, with the recipe found")],
    minutes: Annotated[float | None, typer.Option(help="time allowed; what is left then is not tried")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Search a set's training recipe anew, on validation images, for another student than a narrow ConvNet."""
    from edgedd.atomic import refuse_unwritable
    from edgedd.commands.output import percent, print_json, print_table
    from edgedd.commands.progress import ProgressReport
    from edgedd.distillation.tuning import tune as run
    from edgedd.synthetic_set import SyntheticSet

    refuse_unwritable(output)
    synthetic = SyntheticSet.load(path)
    with ProgressReport() as progress:
        tuned = run(synthetic, data, student, minutes=minutes, device=device, on_step=progress.report)
    tuned.synthetic.save(output)
    own, found = synthetic.recipe.as_dict(), tuned.synthetic.recipe.as_dict()
    if as_json:
        row: dict[str, Any] = {"student": student, "before": tuned.before, "after": tuned.after}
        print_json({**row, "trainings": tuned.trainings, "bytes": tuned.synthetic.nbytes, "recipe": found})
        return
    changed = [(name, own[name], found[name]) for name in own if own[name] != found[name]]
    rows = [("validation accuracy", percent(tuned.before), percent(tuned.after)), *changed]
    if (labels := _sharpness(synthetic)) != (sharper := _sharpness(tuned.synthetic)):
        rows.append(("surest label, mean", percent(labels), percent(sharper)))
    rows.append(("bytes", f"{synthetic.nbytes:,}", f"{tuned.synthetic.nbytes:,}"))
    print_table(f"{student}, {tuned.trainings} trainings", ("", "as it was", "tuned"), rows)


def _sharpness(synthetic: Any) -> float:
    return float(synthetic.soft_labels(slice(None)).max(1).mean())
