"""The command `edgedd pack`."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    path: Annotated[Path, typer.Argument(metavar="SET", help="a synthetic set, plain or compact")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the file to write")],
    plain: Annotated[bool, typer.Option("--plain", help="back to a plain .safetensors file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Store a set compact, entropy-coded, or plain again: the same tensors, bit for bit."""
    from edgedd.commands.output import print_inspection
    from edgedd.synthetic_set import SyntheticSet

    SyntheticSet.load(path).packed(not plain).save(output)
    print_inspection(output, as_json)
