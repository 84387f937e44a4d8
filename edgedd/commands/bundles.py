"""The commands about bundles as such: verify, install and rollback."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgedd.errors import printable

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a folder or .edgedd.zip that `edgedd export` made")]
InstallFolder = Annotated[Path, typer.Argument(metavar="DIR", help="where bundles are installed; DIR/current is one")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
PublicKey = Annotated[
    Path | None,
    typer.Option("--require-signature", metavar="KEY.pem", help="Ed25519 public key of who must have signed"),
]
StudentName = Annotated[str | None, typer.Option("--student", help="one of the bundle's, instead of its first")]


def archive_name(output: Path) -> Path:
    """The name of the file that `--zip` makes."""
    from edgedd.bundles.files import ARCHIVE

    return output if output.name.endswith(ARCHIVE) else output.with_name(output.name + ARCHIVE)


def verify(bundle: BundlePath, require_signature: PublicKey = None, as_json: Json = False) -> None:
    """Check a bundle: every file against its manifest, the set, the signature, and that the graphs run here."""
    from edgedd.bundles.verification import verify as check
    from edgedd.commands.output import print_json

    checks = check(bundle, require_signature=require_signature)
    if as_json:
        print_json({"bundle": str(bundle), "checks": [each._asdict() for each in checks]})
        return
    for part, result in checks:
        print(printable(f"{part}: {result}"))


def install(
    bundle: BundlePath, folder: InstallFolder, require_signature: PublicKey = None, as_json: Json = False
) -> None:
    """Make a bundle the current one of DIR, whole or not at all; the one before is kept for rollback."""
    from edgedd.bundles.installation import install as run

    _print(run(bundle, folder, require_signature=require_signature), as_json)


def rollback(folder: InstallFolder, as_json: Json = False) -> None:
    """Go back to the bundle that was current in DIR before; again, and the newer one returns."""
    from edgedd.bundles.installation import rollback as run

    _print(run(folder), as_json)


def _print(installed: Any, as_json: bool) -> None:
    from edgedd.commands.output import print_json

    path, student = installed.folder / "current", installed.bundle.student
    if as_json:
        print_json(
            {"current": str(path), "version": installed.version, "previous": installed.previous, "student": student}
        )
        return
    before = f"{installed.previous} before" if installed.previous else "none before"
    print(printable(f"{path}: {installed.version}, student {student}; {before}"))
