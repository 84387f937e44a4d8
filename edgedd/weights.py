"""Parameters and buffers of a network in a .safetensors file; hostile until checked."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from edgedd.atomic import write_bytes
from edgedd.errors import FormatError
from edgedd.parameters import ParameterSpec

HEADER_ROOM, NAME_ROOM = 4096, 256  # bytes of a header, and of a parameter in it without its name


def save_weights(path: str | os.PathLike[str], parameters: Mapping[str, np.ndarray]) -> None:
    """Write the parameters whole or not at all. Raises SettingError when the folder cannot be written to."""
    write_bytes(path, weights_bytes(parameters))


def weights_bytes(parameters: Mapping[str, np.ndarray]) -> bytes:
    """The file's bytes: the same parameters give the same ones."""
    content: bytes = safetensors.numpy.save({name: parameters[name] for name in sorted(parameters)})
    return content


def load_weights(path: str | os.PathLike[str], specs: Mapping[str, ParameterSpec]) -> dict[str, np.ndarray]:
    """Read parameters of exactly the names and shapes of `specs`, float32 and finite. Raises FormatError."""
    path = Path(path)
    header = HEADER_ROOM + sum(NAME_ROOM + 6 * len(name) for name in specs)
    most = header + 4 * sum(int(np.prod(spec.shape)) for spec in specs.values())
    try:
        size = path.stat().st_size
        if size > most:
            raise FormatError(f"{path} has {size} bytes, wanted at most {most}: these weights are of another student")
        content = path.read_bytes()
        if int.from_bytes(content[:8], "little") > header:  # small tensors in great number take much memory
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
