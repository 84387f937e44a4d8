"""Write a file whole or not at all: temporary file, fsync, rename; and one writer at a time.

tempfile, shutil and ctypes are imported where they are used: they take megabytes, and training reads only.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgedd.errors import SettingError

PARTIAL = ".partial"  # how names of temporary files and folders end
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Put `content` at `path`; a cut at any moment leaves the old file or the new one, never a part.

    Raises:
        SettingError: the folder does not exist or cannot be written to, or the disk is full.
    """
    import tempfile

    path = Path(path)
    _refuse_other(path)
    beside: dict[str, Any] = {"dir": path.parent, "prefix": f".{path.name}.", "suffix": PARTIAL}
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(**beside, delete=False) as file:
            temporary = file.name
            _lock(file.fileno(), wait=True)  # as long as it lives: no leftover
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


@contextmanager
def only_writer(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Be the one process, and the one thread of it, that writes the file or folder `path`; leftovers go first.

    Held by a lock on `.NAME.lock` beside it, which the kernel undoes when the process dies: such a file means nothing
    by itself. `wait` for another one to finish instead of refusing. Whoever only reads needs none of this, and on a
    file system without locks nobody is refused.

    Raises:
        SettingError: another one writes there now, or the folder above cannot be written to.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        handle = _locked(lock, wait)
    except BlockingIOError as error:
        raise SettingError(f"another process writes {path}: wait until it is done, or choose another name") from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        remove_leftovers(path)
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is held: who has opened it meanwhile sees that and opens another
        os.close(handle)


def _locked(lock: Path, wait: bool) -> int:
    """A handle of the locked file of that name. Raises BlockingIOError when it is locked, OSError."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(handle, wait)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, wait: bool = False) -> None:
    """Raises BlockingIOError when another one has it, OSError."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of `path` left; files that are being written stay. For who holds `only_writer`."""
    import shutil

    path = Path(path)
    for other in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(PARTIAL)}", other.name):
            if other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
            elif not _is_locked(other):
                other.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            _lock(file.fileno())
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def exchange(first: Path, second: Path) -> bool:
    """Swap what two names of one file system stand for, at once; False where the system cannot. Raises OSError."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def refuse_unwritable(path: str | os.PathLike[str]) -> None:
    """What `write_bytes` would refuse, said before long work instead of after it; leaves nothing behind."""
    import tempfile

    path = Path(path)
    _refuse_other(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
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
