"""Parameters and buffers of a network in a .safetensors file; hostile until checked."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from edgedd.atomic import write_bytes
from edgedd.errors import FormatError
from edgedd.parameters import ParameterSpec
from edgedd.storage.set_metadata import class_names, strict_json

HEADER_ROOM, NAME_ROOM = 4096, 256  # bytes of a header, and of a parameter in it without its name
CLASSES, CLASS_ROOM = "edgedd.classes", 1100  # key of their names, and the most bytes of one in the header


def save_weights(
    path: str | os.PathLike[str], parameters: Mapping[str, np.ndarray], classes: Sequence[str] = ()
) -> None:
    """Write the parameters whole or not at all, with the names of `classes` where they are not the set's alone.

    Raises SettingError when the folder cannot be written to.
    """
    write_bytes(path, weights_bytes(parameters, classes))


def weights_bytes(parameters: Mapping[str, np.ndarray], classes: Sequence[str] = ()) -> bytes:
    """The file's bytes: the same parameters and classes give the same ones."""
    metadata = {CLASSES: json.dumps(list(classes), ensure_ascii=False)} if classes else None
    content: bytes = safetensors.numpy.save({name: parameters[name] for name in sorted(parameters)}, metadata)
    return content


def saved_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the classes saved with the weights of a file that `load_weights` took; () for those of its set.

    Raises FormatError for names that no set may have.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    text = header.get("__metadata__", {}).get(CLASSES)
    try:
        return () if text is None else class_names(strict_json("the list of classes", text))
    except FormatError as error:
        raise FormatError(f"{path}: {error}; these weights were altered: train again") from error


def load_weights(
    path: str | os.PathLike[str], specs: Mapping[str, ParameterSpec], outputs: int = 0
) -> dict[str, np.ndarray]:
    """Read parameters of exactly the names and shapes of `specs`, float32 and finite. Raises FormatError.

    `outputs` is how many classes may be named beside them.
    """
    path = Path(path)
    header = HEADER_ROOM + sum(NAME_ROOM + 6 * len(name) for name in specs) + CLASS_ROOM * outputs
    most = header + 4 * sum(int(np.prod(spec.shape)) for spec in specs.values())
    try:
        size = path.stat().st_size
        if size > most:
            raise FormatError(f"{path} has {size} bytes, wanted at most {most}: these weights are of another student")
        content = path.read_bytes()
        if header < int.from_bytes(content[:8], "little") < len(content):  # small ones take much memory
            raise FormatError(f"{path} has another header, wanted weights of this student: train or copy it again")
        tensors = safetensors.numpy.load(content)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}; wanted weights (.safetensors)") from error
    except FormatError:
        raise
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FormatError(f"{path} is no valid safetensors file ({error}): copy it again") from error
    for name in sorted(specs.keys() | tensors.keys()):
        _check(path, name, tensors.get(name), specs.get(name))
    return {name: tensors[name] for name in specs}


def _check(path: Path, name: str, got: np.ndarray | None, wanted: ParameterSpec | None) -> None:
    if wanted is None:
        raise FormatError(f"{path} has the unknown parameter {name}: these weights are of another student")
    if got is None:
        raise FormatError(f"{path} lacks the parameter {name}: these weights are of another student")
    if got.dtype != np.float32 or got.shape != wanted.shape:
        raise FormatError(f"{path}: parameter {name} is {got.dtype} {got.shape}, wanted float32 {wanted.shape}")
    if not np.isfinite(got).all():
        raise FormatError(f"{path}: parameter {name} has a value that is not finite: train again")
