"""A bundle: the folder that goes to a device. Its manifest holds sizes and checksums of the other files.

set.safetensors    the synthetic set            predict.onnx           images -> logits
train_step.onnx    one optimizer step           manifest.json          what it is and what belongs to it
weights.safetensors   where training starts (only when the network came with weights or was trained)
predict.int8.onnx     images -> logits with those weights, quantised (only with them)
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedd.errors import BundleError, SettingError

VERSION = 1
MANIFEST = "manifest.json"
SET, TRAIN_STEP, PREDICT = "set.safetensors", "train_step.onnx", "predict.onnx"
WEIGHTS, PREDICT_INT8 = "weights.safetensors", "predict.int8.onnx"
NEEDED, OPTIONAL = (SET, TRAIN_STEP, PREDICT), (WEIGHTS, PREDICT_INT8)
CONTENTS = (*NEEDED, *OPTIONAL)
MAX_MANIFEST = 2**20
_KEYS = {"version", "edgedd", "student", "image_shape", "classes", "mode", "target", "threads", "files"}


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder.

    Attributes:
        path: the folder.
        edgedd: version of edgedd that wrote it.
        student: name of the network, such as convnet3-w64.
        image_shape: (C, H, W).
        classes: K names.
        mode: what the training graph trains: full, head, bias or last-<k>.
        target: name of the board it was made for, or None.
        threads: the board's cores, which training uses unless told otherwise, or None for those of the machine.
        files: name -> {"bytes": size, "sha256": hexadecimal} of the files beside the manifest.
    """

    path: Path
    edgedd: str
    student: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mode: str
    target: str | None
    threads: int | None
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bundle":
        """Check the manifest, and the size and sha256 of each file. Raises BundleError naming the file at fault."""
        folder = Path(path)
        bundle = cls(path=folder, **_read_manifest(folder))
        for name, wanted in bundle.files.items():
            _check_file(folder / name, wanted)
        return bundle

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files, such as SET or PREDICT. Raises BundleError when it has no such file."""
        if name not in self.files:
            raise BundleError(
                f"{self.path} has no {name}, wanted one of {', '.join(self.files)}: export it again with it"
            )
        return self.path / name

    def holds(self, name: str) -> bool:
        """Whether the bundle has the file WEIGHTS or PREDICT_INT8, which not every bundle has."""
        return name in self.files

    @property
    def nbytes(self) -> int:
        """Bytes of all files together, manifest included."""
        return sum(int(entry["bytes"]) for entry in self.files.values()) + (self.path / MANIFEST).stat().st_size


def write_bundle(path: str | os.PathLike[str], contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> Bundle:
    """Put a bundle at `path` whole or not at all; an earlier bundle there is replaced.

    `contents` holds the bytes of all NEEDED files and perhaps of OPTIONAL ones, `facts` the fields edgedd, student,
    image_shape, classes, mode, target and threads. Raises SettingError when something else than a bundle is at `path`,
    or it cannot be written.
    """
    import shutil
    import tempfile

    folder = Path(path)
    refuse_other_folder(folder)
    files = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()}
    manifest = json.dumps({"version": VERSION, **facts, "files": files}, indent=1, ensure_ascii=False).encode()
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, content in {**contents, MANIFEST: manifest}.items():
                _write_synced(temporary / name, content)
            os.chmod(temporary, 0o755)
            _put_in_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(f"cannot write {folder}: {reason}; choose a folder that exists and has room") from error
    return Bundle.load(folder)


def refuse_other_folder(folder: Path) -> None:
    """Raises SettingError unless there is nothing, an empty folder or a bundle (damaged or not), to be replaced."""
    if not os.path.lexists(folder):
        return
    names = set(os.listdir(folder)) if folder.is_dir() and not folder.is_symlink() else None
    if names is None or (names and (MANIFEST not in names or names - {MANIFEST, *CONTENTS})):
        raise SettingError(f"{folder} exists and is not an edgedd bundle: choose another name or remove it first")


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; an older folder steps aside first and comes back if the rename fails."""
    import shutil
    import tempfile

    if not folder.exists():
        os.rename(temporary, folder)
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


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise BundleError(f"{path} has more than {MAX_MANIFEST} bytes, wanted a bundle's manifest: export again")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} is missing ({error.strerror}), wanted a folder made by edgedd export") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} is not JSON; it is truncated or altered, copy the bundle again") from error
    version = values.get("version") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path} has version={version!r}, wanted {VERSION}: copy the bundle again")
    if version > VERSION:
        raise BundleError(f"{path} has version {version}, this edgedd reads up to {VERSION}: upgrade edgedd")
    if set(values) != _KEYS:
        odd = ", ".join(sorted(set(values) ^ _KEYS))
        raise BundleError(f"{path} has unknown or missing keys ({odd}): copy the bundle again or export it anew")
    return _checked_fields(path, values)


def _checked_fields(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    shape, classes, files, target = (values[key] for key in ("image_shape", "classes", "files", "target"))
    wrong = [key for key in ("edgedd", "student", "mode") if not isinstance(values[key], str)]
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        wrong.append("image_shape")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        wrong.append("classes")
    if target is not None and not isinstance(target, str):
        wrong.append("target")
    threads = values["threads"]
    if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
        wrong.append("threads")
    whole = isinstance(files, dict) and set(NEEDED) <= set(files) <= set(CONTENTS)
    if not whole or not all(map(_is_entry, files.values())):
        wrong.append("files")
    if wrong:
        raise BundleError(f"{path} has an impossible value of {', '.join(wrong)}: copy the bundle again")
    kept = {key: values[key] for key in ("edgedd", "student", "mode", "target", "threads", "files")}
    return kept | {"image_shape": tuple(shape), "classes": tuple(classes)}


def _is_entry(entry: Any) -> bool:
    is_object = isinstance(entry, dict) and set(entry) == {"bytes", "sha256"}
    return is_object and type(entry["bytes"]) is int and isinstance(entry["sha256"], str)


def _check_file(path: Path, wanted: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size
        if size == wanted["bytes"]:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == wanted["sha256"]:
                return
    except OSError as error:
        raise BundleError(f"{path} is missing ({error.strerror}): copy the bundle again") from error
    difference = "other contents" if size == wanted["bytes"] else f"{size} bytes, wanted {wanted['bytes']}"
    raise BundleError(f"{path} was altered after export ({difference}): copy the bundle again or export it anew")
