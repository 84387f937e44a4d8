"""A bundle: what goes to a device, as a folder or as one .edgedd.zip. Its manifest holds sizes and checksums.

set.safetensors    the synthetic set            predict.onnx           images -> logits
train_step.onnx    one optimizer step           manifest.json          what it is and what belongs to it
CARD.md            what people should know      target.toml            the board it was made for, whole
weights.safetensors   where training starts (only when the network came with weights or was trained)
predict.int8.onnx     images -> logits with those weights, quantised (only with them)
manifest.sig          Ed25519 signature of manifest.json (only when it was signed), see edgedd.signature
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedd.errors import BundleError, EdgeddError

if TYPE_CHECKING:
    from edgedd.target import Target

VERSION = 2
ARCHIVE = ".edgedd.zip"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
SET, TRAIN_STEP, PREDICT = "set.safetensors", "train_step.onnx", "predict.onnx"
WEIGHTS, PREDICT_INT8 = "weights.safetensors", "predict.int8.onnx"
CARD, TARGET = "CARD.md", "target.toml"
NEEDED = (SET, TRAIN_STEP, PREDICT)
MAX_MANIFEST, SIGNATURE_BYTES = 2**20, 64
MOST_BYTES = {  # of each file beside the manifest
    SET: 2**28,
    TRAIN_STEP: 2**24,
    PREDICT: 2**24,
    WEIGHTS: 2**28,
    PREDICT_INT8: 2**28,
    CARD: 2**16,
    TARGET: 2**16,
}
MOST_COMMAS = 2**14  # bounds what JSON's objects take, which is up to twenty times the text
_KEYS_1 = {"version", "edgedd", "student", "image_shape", "classes", "mode", "target", "threads", "files"}
_KEYS_2 = {"micro_batch", "licence"}  # bundles of version 1 lack them


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: its folder; of an archive, the temporary one that it was unpacked to, which goes with this object.
        edgedd: version of edgedd that wrote it.
        student: name of the network, such as convnet3-w64.
        image_shape: (C, H, W).
        classes: K names.
        mode: what the training graph trains: full, head, bias or last-<k>.
        target: name of the board it was made for, or None.
        threads: what the plan for the board uses, as training does unless told otherwise; None for the machine's cores.
        micro_batch: images computed at once by that plan; None for what suits the cache.
        licence: under which it may be used, as its maker said; None when nothing was said.
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
    micro_batch: int | None
    licence: str | None
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, require_signature: str | os.PathLike[str] | None = None) -> "Bundle":
        """Check the manifest, and the size and sha256 of each file, of a folder or an .edgedd.zip.

        A link, such as `current` of an installation, is followed once: what it is replaced by later does not mix in.
        `require_signature` is a file with an Ed25519 public key (PEM), by which the manifest must be signed.

        Raises:
            BundleError: what is at fault, by name; or the signature is missing or another's.
            SettingError: the key cannot be read.
            MissingExtra: a signature is required and the extra [sign] is not installed.
        """
        folder = Path(os.path.realpath(path) if os.path.islink(path) else path)
        if folder.is_file():
            from edgedd.bundle_archive import load_archive

            return load_archive(folder, require_signature)
        return cls.of_folder(folder, folder, require_signature)

    @classmethod
    def of_folder(cls, folder: Path, shown: Path, require_signature: str | os.PathLike[str] | None = None) -> "Bundle":
        """`load` of a folder that errors call `shown`."""
        content = read_manifest(folder / MANIFEST, shown / MANIFEST)
        if require_signature is not None:
            from edgedd.signature import check

            check(content, folder / SIGNATURE, shown / SIGNATURE, require_signature)
        bundle = cls(path=folder, **manifest_fields(content, shown / MANIFEST))
        for name, wanted in bundle.files.items():
            _check_file(folder / name, shown / name, wanted)
        return bundle

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files, such as SET or PREDICT. Raises BundleError when it has no such file."""
        if name not in self.files:
            raise BundleError(
                f"{self.path} has no {name}, wanted one of {', '.join(self.files)}: export it again with it"
            )
        return self.path / name

    def holds(self, name: str) -> bool:
        """Whether the bundle has the file WEIGHTS, PREDICT_INT8, CARD or TARGET, which not every bundle has."""
        return name in self.files

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

        from edgedd.target import load_target

        try:
            return replace(load_target(self.file(TARGET)), name=self.target)
        except EdgeddError as error:
            raise BundleError(f"{error}: export the bundle again") from error


def read_manifest(path: Path, shown: Path) -> bytes:
    """Bytes of the manifest at `path`, which errors call `shown`. Raises BundleError."""
    if not path.is_file():
        raise BundleError(f"{shown} is missing or no file, wanted a bundle made by edgedd export")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise BundleError(f"{shown} cannot be read ({error.strerror}), wanted a bundle of edgedd export") from error
    if len(content) > MAX_MANIFEST:
        raise BundleError(f"{shown} has more than {MAX_MANIFEST} bytes, wanted a bundle's manifest: export again")
    return content


def manifest_fields(content: bytes, path: Path) -> dict[str, Any]:
    """The fields of a Bundle but its path, checked; `path` is for errors. Raises BundleError."""
    if content.count(b",") > MOST_COMMAS:
        raise BundleError(f"{path} has more than {MOST_COMMAS} values, wanted a bundle's manifest: export again")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; it is truncated or altered, copy the bundle again") from error
    version = values.get("version") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path} has version={version!r}, wanted 1 to {VERSION}: copy the bundle again")
    if version > VERSION:
        raise BundleError(f"{path} has version {version}, this edgedd reads up to {VERSION}: upgrade edgedd")
    odd = set(values) ^ (_KEYS_1 if version == 1 else _KEYS_1 | _KEYS_2)
    if odd:
        names = ", ".join(sorted(odd))
        raise BundleError(f"{path} has unknown or missing keys ({names}): copy the bundle again or export it anew")
    return _checked(path, dict.fromkeys(_KEYS_2) | values)


def _checked(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    shape, classes, files = (values[key] for key in ("image_shape", "classes", "files"))
    wrong = [key for key in ("edgedd", "student", "mode") if not isinstance(values[key], str)]
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        wrong.append("image_shape")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        wrong.append("classes")
    wrong += [key for key in ("target", "licence") if not isinstance(values[key], str | None)]
    for name, most in (("threads", 1024), ("micro_batch", 65_536)):
        number = values[name]
        if number is not None and (type(number) is not int or not 1 <= number <= most):
            wrong.append(name)
    if not isinstance(files, dict) or not set(NEEDED) <= set(files) or not all(map(_is_entry, files, files.values())):
        wrong.append("files")
    if wrong:
        raise BundleError(f"{path} has an impossible value of {', '.join(wrong)}: copy the bundle again")
    kept = ("edgedd", "student", "mode", "target", "threads", "micro_batch", "licence", "files")
    return {key: values[key] for key in kept} | {"image_shape": tuple(shape), "classes": tuple(classes)}


def _is_entry(name: str, entry: Any) -> bool:
    if name not in MOST_BYTES or not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
        return False
    size, digest = entry["bytes"], entry["sha256"]
    return type(size) is int and 0 <= size <= MOST_BYTES[name] and isinstance(digest, str)


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
