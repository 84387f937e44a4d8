"""A bundle as one zip file; hostile until checked. What its entries declare is bounded before anything is unpacked."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

from edgedd.bundles.files import (
    MANIFEST,
    MAX_MANIFEST,
    MOST_BYTES,
    MOST_STUDENTS,
    OF_EACH_STUDENT,
    SIGNATURE,
    SIGNATURE_BYTES,
    most_bytes,
)
from edgedd.errors import BundleError, SettingError

BESIDE = {MANIFEST: MAX_MANIFEST, SIGNATURE: SIGNATURE_BYTES}
MOST_ENTRIES = len(BESIDE) + len(MOST_BYTES) + (MOST_STUDENTS - 1) * len(OF_EACH_STUDENT)
MOST_RATIO = 100  # unpacked bytes for a byte of the archive
MAX_NAME = 64
MOST_LISTED = 4096  # bytes of the list of entries, which zipfile reads whole
CHUNK = 2**16
_END, _LOCATOR64_BYTES = struct.Struct("<4s4H2LH"), 20
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, LookupError, struct.error, zipfile.BadZipFile, zlib.error)


def archive_bytes(contents: Mapping[str, bytes]) -> bytes:
    """A zip of the files, in the order of their names and without times: equal files give equal bytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, contents[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def unpack(path: Path, folder: Path) -> None:
    """Write the entries of the archive to `folder`, in chunks; their contents are for `Bundle.of_folder` to check.

    Raises:
        BundleError: no zip file, a damaged one, or an entry that no bundle has.
        SettingError: `folder` cannot be written to.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            _check_end(path, file, size)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                _check_entries(path, entries, size)
                for entry in entries:
                    with archive.open(entry) as packed:
                        _write(path, packed, folder / entry.filename)
    except (BundleError, SettingError):
        raise
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BundleError(f"{path} is a damaged zip ({reason}): copy the bundle again") from error


def _check_end(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse what is no zip from first to last byte: with a comment, on several disks, of 64 bits, or many entries."""
    file.seek(max(size - _END.size - _LOCATOR64_BYTES, 0))
    tail = file.read()
    if tail[-_END.size :][:4] != b"PK\x05\x06":
        raise BundleError(f"{path} is no zip file, or truncated, wanted a bundle made by edgedd export: copy it again")
    _, disk, first_disk, here, count, listed, offset, comment = _END.unpack(tail[-_END.size :])
    whole = (disk, first_disk, comment, here) == (0, 0, 0, count) and offset + listed + _END.size == size
    if not whole or tail.startswith(b"PK\x06\x07"):
        raise BundleError(f"{path} is not a plain zip from first to last byte: copy the bundle again")
    if count > MOST_ENTRIES or listed > MOST_LISTED:
        raise BundleError(
            f"{path} lists {count} entries in {listed} bytes, wanted {MOST_ENTRIES} in {MOST_LISTED} at most"
        )


def _check_entries(path: Path, entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    names: set[str] = set()
    for entry in entries:
        if reason := _reason_against(entry) or ("standing twice" if entry.filename in names else ""):
            shown = entry.orig_filename[: 2 * MAX_NAME]
            raise BundleError(f"{path}: entry {shown!r} is {reason}, wanted a bundle made by edgedd export")
        names.add(entry.filename)
    declared = sum(entry.file_size for entry in entries)
    if declared > MOST_RATIO * size:
        raise BundleError(f"{path} has {size} bytes and declares {declared}, wanted at most {MOST_RATIO} times as many")


def _reason_against(entry: zipfile.ZipInfo) -> str:
    """Why no bundle has such an entry; empty when one may."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    parts = name.replace("\\", "/").split("/")
    most = BESIDE.get(name) or most_bytes(name)
    reasons = (
        (len(name) > MAX_NAME, f"called by {len(name)} characters"),
        (parts[0] == "" or ".." in parts or ":" in parts[0], "outside the folder"),
        (kind not in (0, stat.S_IFREG), "a link or another special file"),
        (most is None or entry.filename != name, "none of a bundle's files"),
        (entry.flag_bits & 1, "encrypted"),
        (entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), "compressed in an unknown way"),
        (entry.file_size > (most or 0), f"of {entry.file_size} bytes and may have {most}"),
    )
    return next((reason for wrong, reason in reasons if wrong), "")


def _write(path: Path, packed: IO[bytes], out: Path) -> None:
    """Raises SettingError when `out` cannot be written; what reading raises is for the caller."""
    try:
        file = open(out, "xb")  # noqa: SIM115 (closed below; reading must not be taken for writing)
    except OSError as error:
        raise cannot_unpack(path, out.parent, error) from error
    with file:
        while chunk := packed.read(CHUNK):
            try:
                file.write(chunk)
            except OSError as error:
                raise cannot_unpack(path, out.parent, error) from error


def cannot_unpack(path: Path, folder: Path, error: OSError) -> SettingError:
    """Raised where the archive at `path` finds no room in `folder`, or may not write there."""
    reason = error.strerror or str(error)
    return SettingError(
        f"cannot unpack {path} to {folder}: {reason}; make room there, or choose another place (TMPDIR)"
    )
