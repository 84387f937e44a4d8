"""Bundles installed on a device, atomically: the new one is whole before it is current, and the one before stays.

DIR/versions/<12 digits>   installed bundles, named by the SHA-256 of manifest and signature
DIR/current                a link to one of them; to replace it is the one moment when an installation happens
DIR/previous               a link to what was current before, for `rollback`
DIR/.previous              the link that becomes `previous`, while `current` is being replaced
DIR/.edgedd.lock           locked by the process that installs; the kernel unlocks it when that process dies

What a cut leaves behind, the next command finishes or removes.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgedd.atomic import sync_folder
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import MANIFEST, SIGNATURE, SIGNATURE_BYTES
from edgedd.bundles.manifest import manifest_fields, read_manifest
from edgedd.bundles.verification import verify
from edgedd.errors import BundleError, EdgeddError, SettingError

CURRENT, PREVIOUS, PENDING, LINK = "current", "previous", ".previous", ".link"
VERSIONS, LOCK, STAGED = "versions", ".edgedd.lock", ".new."
_VERSION = re.compile(r"[0-9a-f]{12}")
_CHUNK = 2**16


@dataclass(frozen=True)
class Installation:
    """What is installed at `folder`: `bundle` is its `current`, called `version`; `previous` is None at first."""

    folder: Path
    version: str
    previous: str | None
    bundle: Bundle


def install(
    bundle: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    require_signature: str | os.PathLike[str] | None = None,
) -> Installation:
    """Make a bundle, folder or .edgedd.zip, the current one of `folder`, once it is copied, verified and on the disk.

    A cut at any moment leaves the old bundle current or the new one, whole; so does every error. To install what is
    current already changes nothing.

    Raises:
        BundleError, FormatError: the bundle is damaged, unsigned where a signature is required, or does not run here.
        SettingError: `folder` holds something else, cannot be written to, is full, or another process installs there.
    """
    source, folder = Path(bundle), Path(folder)
    with _locked(folder, new=True):
        _tidy(folder)
        staged = Path(tempfile.mkdtemp(dir=folder / VERSIONS, prefix=STAGED))
        try:
            _copy(source, staged)
            _verify(staged, source, require_signature)
            version = _version(staged)
            _sync(staged)
            _place(staged, folder / VERSIONS / version)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        _switch(folder, version)
        _tidy(folder)
        return _installation(folder)


def rollback(folder: str | os.PathLike[str]) -> Installation:
    """Make the previous bundle current again, and the current one the previous. Raises as `install` does."""
    folder = Path(folder)
    with _locked(folder, new=False):
        _tidy(folder)
        previous = _pointed(folder, PREVIOUS)
        if previous is None or previous == _pointed(folder, CURRENT):
            raise SettingError(f"{folder} has no previous bundle to go back to: install another one first")
        verify(folder / VERSIONS / previous)
        _switch(folder, previous)
        return _installation(folder)


def _installation(folder: Path) -> Installation:
    version = _pointed(folder, CURRENT) or ""
    return Installation(folder, version, _pointed(folder, PREVIOUS), Bundle.load(folder / CURRENT))


@contextmanager
def _locked(folder: Path, *, new: bool) -> Iterator[None]:
    """Hold the folder's lock; the errors of the system within become a SettingError."""
    import fcntl

    try:
        if new:
            _begin(folder)
        elif not (folder / LOCK).is_file():
            raise SettingError(f"{folder} has no installed bundle, wanted a folder of edgedd install")
        with open(folder / LOCK, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SettingError(f"another process installs to {folder}: try again when it is done") from error
            (folder / VERSIONS).mkdir(exist_ok=True)
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(f"cannot install to {folder}: {reason}; what was installed is untouched") from error


def _begin(folder: Path) -> None:
    if not os.path.lexists(folder):
        folder.mkdir()
        sync_folder(folder.parent)
    elif not folder.is_dir() or (os.listdir(folder) and not (folder / LOCK).is_file()):
        raise SettingError(f"{folder} holds something else than installed bundles: choose a new or an empty folder")


def _copy(source: Path, staged: Path) -> None:
    """What the manifest lists, and no more of each file than it says; whether it is right is checked afterwards."""
    if source.is_file():
        from edgedd.bundles.archive import unpack

        unpack(source, staged)
        return
    content = read_manifest(source / MANIFEST, source / MANIFEST)
    sizes = {name: entry["bytes"] for name, entry in manifest_fields(content, source / MANIFEST)["files"].items()}
    sizes |= {SIGNATURE: SIGNATURE_BYTES} if (source / SIGNATURE).is_file() else {}
    (staged / MANIFEST).write_bytes(content)
    for name, size in sizes.items():
        _copy_file(source / name, staged / name, size + 1)


def _copy_file(source: Path, target: Path, most: int) -> None:
    if not source.is_file():
        raise BundleError(f"{source} is missing or no file: copy the bundle again")
    with open(target, "wb") as written, open(source, "rb") as read:
        while most > 0 and (chunk := read.read(min(_CHUNK, most))):
            written.write(chunk)
            most -= len(chunk)


def _verify(staged: Path, source: Path, require_signature: str | os.PathLike[str] | None) -> None:
    try:
        verify(staged, require_signature=require_signature)
    except EdgeddError as error:
        if str(staged) not in str(error):
            raise
        raise type(error)(str(error).replace(str(staged), str(source))) from error


def _version(staged: Path) -> str:
    signature = staged / SIGNATURE
    content = (staged / MANIFEST).read_bytes() + (signature.read_bytes() if signature.is_file() else b"")
    return hashlib.sha256(content).hexdigest()[:12]


def _sync(staged: Path) -> None:
    for path in staged.iterdir():
        path.chmod(0o644)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    staged.chmod(0o755)
    sync_folder(staged)


def _place(staged: Path, version: Path) -> None:
    """Give the staged bundle its name; one of that name stays when it is whole, and makes way when it is damaged."""
    if version.is_dir():
        try:
            verify(version)
            return
        except EdgeddError:
            version.rename(Path(tempfile.mkdtemp(dir=version.parent, prefix=STAGED)) / "damaged")
    staged.rename(version)
    sync_folder(version.parent)


def _switch(folder: Path, version: str) -> None:
    """Make `version` current, and previous what was current."""
    current = _pointed(folder, CURRENT)
    if current == version:
        return
    if current is not None:
        _point(folder, PENDING, current)
    _point(folder, CURRENT, version)
    _settle(folder)


def _settle(folder: Path) -> None:
    """The pending link becomes `previous` if `current` was replaced, and goes if it was not."""
    pending = _pointed(folder, PENDING)
    if pending is None:
        return
    if pending == _pointed(folder, CURRENT):
        os.unlink(folder / PENDING)
    else:
        os.replace(folder / PENDING, folder / PREVIOUS)
    sync_folder(folder)


def _point(folder: Path, name: str, version: str) -> None:
    (folder / LINK).unlink(missing_ok=True)
    os.symlink(f"{VERSIONS}/{version}", folder / LINK)
    os.replace(folder / LINK, folder / name)
    sync_folder(folder)


def _pointed(folder: Path, name: str) -> str | None:
    """The version that a link names; None when there is no link. Raises SettingError for what is no such link."""
    if not os.path.lexists(folder / name):
        return None
    target = os.readlink(folder / name) if os.path.islink(folder / name) else ""
    parent, _, version = target.partition("/")
    if parent != VERSIONS or not _VERSION.fullmatch(version):
        raise SettingError(f"{folder / name} is no link that edgedd install made: remove it, or choose another folder")
    return version


def _tidy(folder: Path) -> None:
    """Finish or undo what was cut, and remove what neither `current` nor `previous` is."""
    _settle(folder)
    (folder / LINK).unlink(missing_ok=True)
    kept = {_pointed(folder, CURRENT), _pointed(folder, PREVIOUS)}
    for path in (folder / VERSIONS).iterdir():
        if path.name.startswith(STAGED) or (_VERSION.fullmatch(path.name) and path.name not in kept):
            shutil.rmtree(path, ignore_errors=True)
