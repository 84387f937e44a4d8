"""Writing a bundle, as a folder or as one .edgedd.zip: whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedd.atomic import PARTIAL, exchange, only_writer, refuse_unwritable, sync_folder, write_bytes
from edgedd.bundles.archive import archive_bytes
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import ARCHIVE, MANIFEST, SIGNATURE, VERSION, most_bytes
from edgedd.errors import SettingError


def write_bundle(
    path: str | os.PathLike[str],
    contents: Mapping[str, bytes],
    facts: Mapping[str, Any],
    sign: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Put a bundle at `path` whole or not at all; an earlier bundle there is replaced.

    A name that ends in .edgedd.zip makes one file, any other a folder. `contents` holds the bytes of all NEEDED files
    and perhaps of others of MOST_BYTES, `facts` the fields edgedd, student, image_shape, classes, mode, target and
    threads, and perhaps micro_batch, licence and more_students: the name of each further student -> its threads and
    micro_batch, with its files in `contents`. `sign` is a file with the Ed25519 key (PEM) that signs the manifest.

    Raises:
        SettingError: something else than a bundle is at `path`, another process writes it or it cannot be written, or
            the key cannot be used.
        MissingExtra: a signature is wanted and the extra [sign] is not installed.
    """
    path = Path(path)
    refuse_other(path)
    files = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()}
    version = VERSION if "more_students" in facts else VERSION - 1
    values = {"version": version, "micro_batch": None, "licence": None, **facts, "files": files}
    manifest = json.dumps(values, indent=1, ensure_ascii=False).encode()
    written = {**contents, MANIFEST: manifest}
    if sign is not None:
        from edgedd.bundles.signature import signature

        written[SIGNATURE] = signature(manifest, sign)
    with only_writer(path):
        refuse_other(path)
        if path.name.endswith(ARCHIVE):
            write_bytes(path, archive_bytes(written))
        else:
            _write_folder(path, written)
        return Bundle.load(path)


def refuse_other(path: Path) -> None:
    """Raises SettingError unless there is nothing, an empty folder or a bundle (damaged or not), to be replaced."""
    if path.name.endswith(ARCHIVE):
        refuse_unwritable(path)
        return
    if not os.path.lexists(path):
        return
    names = set(os.listdir(path)) if path.is_dir() and not path.is_symlink() else None
    strange = {name for name in names or () if most_bytes(name) is None} - {MANIFEST, SIGNATURE}
    if names is None or (names and MANIFEST not in names) or strange:
        raise SettingError(f"{path} exists and is not an edgedd bundle: choose another name or remove it first")


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=PARTIAL))
        try:
            for name, content in contents.items():
                _write_synced(temporary / name, content)
            os.chmod(temporary, 0o755)
            sync_folder(temporary)
            _put_in_place(temporary, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(f"cannot write {folder}: {reason}; choose a folder that exists and has room") from error


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`, in exchange for an older folder, which is then called `temporary`.

    Where the system cannot exchange, the older one steps aside for a moment, and comes back if the rename fails.
    """
    if not folder.exists():
        os.rename(temporary, folder)
        return
    if exchange(temporary, folder):
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    os.rename(folder, aside / "bundle")
    try:
        os.rename(temporary, folder)
    except OSError:
        os.rename(aside / "bundle", folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
