"""Write a file whole or not at all: temporary file, fsync, rename.

tempfile is imported where it is used: with what it needs it takes most of a megabyte, and training reads only.
"""

import os
import re
from pathlib import Path

from edgedd.errors import SettingError


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Put `content` at `path`; a cut at any moment leaves the old file or the new one, never a part.

    Raises:
        SettingError: the folder does not exist or cannot be written to, or the disk is full.
    """
    import tempfile

    path = Path(path)
    _refuse_other(path)
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = ""
        sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers of `path` that were killed. Nobody may be writing it now."""
    path = Path(path)
    for other in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}", other.name):
            other.unlink(missing_ok=True)


def refuse_unwritable(path: str | os.PathLike[str]) -> None:
    """What `write_bytes` would refuse, said before long work instead of after it; leaves nothing behind."""
    import tempfile

    path = Path(path)
    _refuse_other(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def _refuse_other(path: Path) -> None:
    """Folders, and what a rename would destroy, such as /dev/null."""
    if path.is_dir():
        raise SettingError(f"{path} is a folder, wanted a file name: add one to the path")
    if path.exists() and not path.is_file():
        raise SettingError(f"{path} is a device or a pipe, wanted a file name: choose another")


def _cannot_write(path: Path, error: OSError) -> SettingError:
    reason = error.strerror or str(error)
    return SettingError(f"cannot write {path}: {reason}; choose a folder that exists and has room")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on the disk before going on, as after a rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
