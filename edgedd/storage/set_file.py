"""The file of a synthetic set (docs/format.md), read and written, plain or compact; hostile until checked."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from edgedd.atomic import write_bytes
from edgedd.errors import FormatError, SettingError
from edgedd.parameterization import Parameterization
from edgedd.recipe import Recipe
from edgedd.storage import compact_file, set_metadata
from edgedd.storage.set_tensors import DTYPES, Spec, check_count, check_values, tensor_specs

MAX_BYTES = 256 * 2**20
MAX_HEADER = 2**18


def serialize(
    parameterization: Parameterization,
    tensors: Mapping[str, np.ndarray],
    recipe: Recipe,
    classes: tuple[str, ...],
    provenance: Mapping[str, Any],
    *,
    compact: bool = False,
) -> bytes:
    """The bytes of a set; equal sets give equal bytes. Raises SettingError for provenance that JSON cannot hold."""
    text = set_metadata.to_text(parameterization, recipe, classes, provenance)
    if compact:
        return compact_file.serialize(parameterization, tensors, text, len(classes))
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return safetensors.numpy.save(ordered, metadata={"edgedd": text})


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Put the bytes at `path`, whole or not at all. Raises FormatError for a set that could not be read again."""
    parse(content)
    write_bytes(path, content)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check a file -> the fields of a SyntheticSet. Raises FormatError: what, where, what was wanted."""
    path = Path(path)
    try:
        info = path.stat()
        wanted = stat.S_ISREG(info.st_mode) and info.st_size <= MAX_BYTES
        content = path.read_bytes() if wanted else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"cannot read {path}: {reason}; wanted a synthetic set (.safetensors)") from error
    if not stat.S_ISREG(info.st_mode):
        raise FormatError(f"{path} is not a file, wanted a synthetic set (.safetensors)")
    if not wanted:
        raise FormatError(f"{path} has {info.st_size} bytes, wanted a synthetic set of at most {MAX_BYTES}")
    try:
        return parse(content)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except SettingError as error:
        raise FormatError(f"{path}: {error}; the file is damaged or newer, make or copy it again") from error


def parse(content: bytes) -> dict[str, Any]:
    """Bytes of a file -> the fields of a SyntheticSet. Raises FormatError or SettingError."""
    if content.startswith(compact_file.MAGIC):
        return compact_file.parse(content) | {"compact": True}
    header = _header(content)
    entries = {name: _spec(name, entry) for name, entry in header.items() if name != "__metadata__"}
    fields = set_metadata.from_header(header)
    parameterization = fields["parameterization"]
    dtype, shape = entries.get("labels", ("none", ()))
    if len(shape) != 2 or shape[1] != len(fields["classes"]):
        raise FormatError(f"tensor labels is {dtype} {shape}, wanted U8 (n, {len(fields['classes'])})")
    check_count(parameterization, *shape)
    specs = tensor_specs(parameterization, *shape)
    for name in sorted(specs.keys() | entries.keys()):
        if name not in specs:
            raise FormatError(f"unknown tensor {name}, wanted only: {', '.join(specs)}")
        if name not in entries:
            raise FormatError(f"tensor {name} is missing, wanted {specs[name][0]} {specs[name][1]}")
        if entries[name] != specs[name]:
            raise FormatError(
                f"tensor {name} is {entries[name][0]} {entries[name][1]}, wanted {specs[name][0]} {specs[name][1]}"
            )
    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FormatError(
            f"not a valid safetensors file ({error}); it is truncated or altered, copy it again"
        ) from error
    check_values(tensors)
    return fields | {"tensors": tensors}


def _header(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, MAX_HEADER):
        raise FormatError("not a safetensors file, or truncated: its header does not fit; copy it again")
    try:
        text = content[8 : 8 + length].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("its header is not UTF-8 text; it is truncated or altered, copy it again") from error
    header = set_metadata.strict_json("header", text)
    if not isinstance(header, dict):
        raise FormatError("its header is not a JSON object, wanted a safetensors file")
    return header


def _spec(name: str, entry: Any) -> Spec:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor {name} has unknown or missing keys, wanted dtype, shape, data_offsets")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"tensor {name} has dtype {dtype!r}, wanted one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and 0 < size <= MAX_BYTES for size in shape):
        raise FormatError(f"tensor {name} has shape {shape!r}, wanted sizes of 1..{MAX_BYTES}")
    return dtype, tuple(shape)
