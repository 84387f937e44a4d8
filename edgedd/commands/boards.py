"""The commands about boards that `edgedd` has besides `targets`: plan and calibrate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgedd.errors import SettingError
from edgedd.planning.target import THIS_MACHINE

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def plan(
    target: Annotated[str, typer.Option(help="a board: see `edgedd targets`")],
    shape: Annotated[str | None, typer.Option(help="of the images, such as 3x32x32")] = None,
    classes: Annotated[int | None, typer.Option(help="how many")] = None,
    data: Annotated[str | None, typer.Option("--data", help="instead of shape and classes")] = None,
    bundle: Annotated[Path | None, typer.Option(help="instead of those, on a device: how to train it there")] = None,
    student: Annotated[str | None, typer.Option(help="convnet<depth>-w<width>, resnet8, mobilenet-tiny, mlp")] = None,
    mode: Annotated[str | None, typer.Option(help="what is trained: full, head, bias or last-<k>")] = None,
    bytes_: Annotated[int | None, typer.Option("--bytes", help="size of the set, instead of the board's")] = None,
    ipc: Annotated[int | None, typer.Option(help="images per class")] = None,
    parameterization: Annotated[str | None, typer.Option(help="only this kind")] = None,
    rank: Annotated[int | None, typer.Option(help="only this rank")] = None,
    subspaces: Annotated[int | None, typer.Option(help="only so many subspaces")] = None,
    formation: Annotated[int | None, typer.Option(help="only so many tiles a side")] = None,
    bits: Annotated[int | None, typer.Option(help="only so many bits")] = None,
    threads: Annotated[int | None, typer.Option(help="processor threads")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="images computed at once")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="also the alternatives, and why they lost")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="picture of the budget (PNG)")] = None,
    as_json: Json = False,
) -> None:
    """What to distil for a board and how it trains there: bytes, memory, time."""
    from edgedd.commands.plan_output import print_plan

    wanted = {key: value for key, value in locals().items() if key in _WANTED and value is not None}
    wanted |= {k: v for k, v in (("bytes", bytes_), ("num_classes", classes)) if v is not None}
    answer = _answer(bundle, shape, wanted)
    if output is not None:
        from edgedd.report.budget import draw

        draw(answer, output)
    print_plan(answer, explain=explain, as_json=as_json, picture=output)


_WANTED = (
    "target",
    "data",
    "student",
    "mode",
    "ipc",
    "parameterization",
    "rank",
    "subspaces",
    "formation",
    "bits",
    "threads",
    "micro_batch",
)


def _answer(bundle: Path | None, shape: str | None, wanted: dict[str, Any]) -> Any:
    from edgedd.planning import plan as planning

    if bundle is None:
        return planning.plan(image_shape=None if shape is None else _shape(shape), **wanted)
    target = wanted.pop("target")
    how = {key: wanted.pop(key) for key in ("threads", "micro_batch", "student") if key in wanted}
    odd = [*wanted, *(["shape"] if shape else [])]
    if odd:
        raise SettingError(f"a bundle has its own {', '.join(sorted(odd))}: leave that out, or plan without --bundle")
    return planning.plan_bundle(bundle, target, **how)


def _shape(text: str) -> tuple[int, int, int]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() for side in sides):
        raise SettingError(f"--shape {text}: wanted CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return int(sides[0]), int(sides[1]), int(sides[2])


def calibrate(
    bundle: Annotated[Path | None, typer.Argument(metavar="[BUNDLE]", help="also time this bundle's step")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the profile to write (.toml)")] = None,
    target: Annotated[str, typer.Option(help="the board that this is: its memory and storage are kept")] = THIS_MACHINE,
    as_json: Json = False,
) -> None:
    """Measure the machine this runs on, in under a minute, and write a profile that `--target` then takes."""
    from edgedd.commands.plan_output import print_calibration
    from edgedd.device.calibration import calibrate as measure

    print_calibration(*measure(output, bundle, target), as_json)
