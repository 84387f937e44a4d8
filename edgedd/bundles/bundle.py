"""A bundle: what goes to a device, as a folder or as one .edgedd.zip. Its manifest holds sizes and checksums."""

import hashlib
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedd.bundles.files import CARD, MANIFEST, SET, SIGNATURE, TARGET, file_of
from edgedd.bundles.manifest import manifest_fields, read_manifest
from edgedd.bundles.signature import check
from edgedd.errors import BundleError, EdgeddError, SettingError

if TYPE_CHECKING:
    from edgedd.planning.target import Target


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: its folder; of an archive, the temporary one that it was unpacked to, which goes with this object.
        edgedd: version of edgedd that wrote it.
        student: name of the network, such as convnet3-w64: the first of the bundle's, or the one that was asked for.
        image_shape: (C, H, W).
        classes: K names.
        mode: what the training graph trains: full, head, bias or last-<k>.
        target: name of the board it was made for, or None.
        threads: what the plan for the board uses, as training does unless told otherwise; None for the machine's cores.
        micro_batch: images computed at once by that plan; None for what suits the cache.
        licence: under which it may be used, as its maker said; None when nothing was said.
        files: name -> {"bytes": size, "sha256": hexadecimal} of the files beside the manifest.
        students: names of all its networks, the first one first.
    """

    path: Path
    edgedd: str
    student: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mode: str
    target: str | None
    threads: int | None
    micro_batch: int | None
    licence: str | None
    files: Mapping[str, Mapping[str, Any]]
    students: tuple[str, ...]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        require_signature: str | os.PathLike[str] | None = None,
        student: str | None = None,
    ) -> "Bundle":
        """Check the manifest, and the size and sha256 of each file, of a folder or an .edgedd.zip.

        A link, such as `current` of an installation, is followed once: what it is replaced by later does not mix in.
        `require_signature` is a file with an Ed25519 public key (PEM), by which the manifest must be signed. `student`
        chooses among several: `file` and `holds` are then about it.

        Raises:
            BundleError: what is at fault, by name; or the signature is missing or another's.
            SettingError: the key cannot be read, or the bundle has no such student.
            MissingExtra: a signature is required and the extra [sign] is not installed.
        """
        folder = Path(os.path.realpath(path) if os.path.islink(path) else path)
        if folder.is_file():
            return cls._of_archive(folder, require_signature, student)
        before = _written(folder)
        try:
            return cls.of_folder(folder, folder, require_signature, student)
        except BundleError:
            if _written(folder) == before:
                raise
        return cls.load(folder, require_signature=require_signature, student=student)  # it was replaced meanwhile

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        shown: Path,
        require_signature: str | os.PathLike[str] | None = None,
        student: str | None = None,
    ) -> "Bundle":
        """`load` of a folder that errors call `shown`."""
        content = read_manifest(folder / MANIFEST, shown / MANIFEST)
        if require_signature is not None:
            check(content, folder / SIGNATURE, shown / SIGNATURE, require_signature)
        fields = manifest_fields(content, shown / MANIFEST)
        more = fields.pop("more_students")
        fields["students"] = (fields["student"], *more)
        if student is not None and student not in fields["students"]:
            names = ", ".join(fields["students"])
            raise SettingError(f"{shown} has no student {student!r}, wanted one of its own: {names}")
        bundle = cls(path=folder, **fields | more.get(student or "", {}))
        for name, wanted in bundle.files.items():
            _check_file(folder / name, shown / name, wanted)
        return bundle

    @classmethod
    def _of_archive(cls, path: Path, require_signature: str | os.PathLike[str] | None, student: str | None) -> "Bundle":
        """`load` of an archive: unpacked to a temporary folder, which goes when the Bundle does."""
        import shutil
        import tempfile

        from edgedd.bundles.archive import cannot_unpack, unpack

        try:
            folder = Path(tempfile.mkdtemp(prefix="edgedd."))
        except OSError as error:
            raise cannot_unpack(path, Path(tempfile.gettempdir()), error) from error
        try:
            unpack(path, folder)
            bundle = cls.of_folder(folder, path, require_signature, student)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
        return bundle

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files, such as SET or PREDICT. Raises BundleError when it has no such file."""
        stored = self._stored(name)
        if stored not in self.files:
            raise BundleError(
                f"{self.path} has no {stored}, wanted one of {', '.join(self.files)}: export it again with it"
            )
        return self.path / stored

    def checked(self, name: str) -> Path:
        """`file`, as it was when the bundle was loaded. Raises BundleError when it was altered or replaced since."""
        path = self.file(name)
        _check_file(path, path, self.files[path.name])
        return path

    def holds(self, name: str) -> bool:
        """Whether the bundle has the file WEIGHTS, PREDICT_INT8, CARD or TARGET, which not every bundle has."""
        return self._stored(name) in self.files

    def _stored(self, name: str) -> str:
        """What a file of the student is called in the folder."""
        first = self.student == self.students[0] or name in (SET, CARD, TARGET)
        return name if first else file_of(self.student, name)

    @property
    def signed(self) -> bool:
        """Whether there is a signature, by whomever: `load` checks it when it is told the key."""
        return (self.path / SIGNATURE).is_file()

    @property
    def nbytes(self) -> int:
        """Bytes of all files together, manifest included, signature not."""
        return sum(int(entry["bytes"]) for entry in self.files.values()) + (self.path / MANIFEST).stat().st_size

    def profile(self) -> "Target | None":
        """The board it was made for, as it was known then; None when it was made for none, or by edgedd 0.1.0.

        Raises BundleError for a profile that is damaged.
        """
        if self.target is None or not self.holds(TARGET):
            return None
        from dataclasses import replace

        from edgedd.planning.target import load_target

        try:
            return replace(load_target(self.file(TARGET)), name=self.target)
        except EdgeddError as error:
            raise BundleError(f"{error}: export the bundle again") from error


def _written(folder: Path) -> tuple[int, ...] | None:
    """What tells one writing of the folder from the next, be its contents the same: its manifest's inode and times."""
    try:
        found = os.stat(folder / MANIFEST)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _check_file(path: Path, shown: Path, wanted: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise BundleError(f"{shown} is missing or no file: copy the bundle again")
    try:
        size = path.stat().st_size
        if size == wanted["bytes"]:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == wanted["sha256"]:
                return
    except OSError as error:
        raise BundleError(f"{shown} cannot be read ({error.strerror}): copy the bundle again") from error
    difference = "other contents" if size == wanted["bytes"] else f"{size} bytes, wanted {wanted['bytes']}"
    raise BundleError(f"{shown} was altered after export ({difference}): copy the bundle again or export it anew")
