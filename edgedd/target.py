"""Boards and what a process may use on them: one TOML file a board, under `targets/`.

Every figure states where it comes from: measured by us, published by others, or estimated.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgedd.errors import TargetError

ISAS = ("aarch64", "armv7l", "x86_64", "riscv64")
KINDS = ("measured", "published", "estimated")
MAX_FILE_BYTES = 65_536
_FIGURES = {
    "process_ram_bytes": int,
    "storage_bytes": int,
    "cores": int,
    "effective_gflops": float,
    "runtime_floor_bytes": int,
}
_TEXTS = ("title", "isa", "onnxruntime_ceiling")


class Source(NamedTuple):
    """Where a figure comes from: `kind` is measured, published or estimated; `text` says by whom and how."""

    kind: str
    text: str


@dataclass(frozen=True)
class Target:
    """One board.

    Attributes:
        name: the name of its file, such as raspberry-pi-zero-2w.
        title: the name of the board for people.
        train: whether it may train; False means that it only infers.
        process_ram_bytes: memory that one process may use, not that of the board.
        storage_bytes: room for one synthetic set, as a file.
        cores: CPU cores.
        isa: aarch64, armv7l, x86_64 or riscv64.
        onnxruntime_ceiling: newest onnxruntime that runs there, such as "1.23.2"; empty where no limit is known.
        effective_gflops: float32 GFLOP/s that training is expected to reach on all cores together.
        runtime_floor_bytes: resident memory of Python with numpy and onnxruntime loaded, before any work.
        sources: where each figure comes from, by its name.
    """

    name: str
    title: str
    train: bool
    process_ram_bytes: int
    storage_bytes: int
    cores: int
    isa: str
    onnxruntime_ceiling: str
    effective_gflops: float
    runtime_floor_bytes: int
    sources: Mapping[str, Source]


def targets() -> tuple[str, ...]:
    """Names of the boards that come with edgedd, in order."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """A board by name, or from a TOML file of your own by path.

    Raises:
        TargetError: unknown name, unreadable file, unknown or missing key, or an impossible value.
    """
    text = os.fspath(name_or_path)
    if text in targets():
        return _read(_folder() / f"{text}.toml")
    if text.endswith(".toml") or os.sep in text:
        return _read(Path(text))
    nearest = difflib.get_close_matches(text.lower(), targets(), n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise TargetError(f"unknown target {text!r}, wanted one of: {', '.join(targets())}, or a .toml file{hint}")


def _folder() -> Path:
    """`edgedd/targets` in an installed wheel, `targets` beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "targets"
    return inside if inside.is_dir() else package.parent / "targets"


def _read(path: Path) -> Target:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise TargetError(f"{path} is larger than {MAX_FILE_BYTES} bytes, wanted a target profile")
        values = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}; wanted a target profile (.toml)") from error
    except TargetError:
        raise
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{path} is not TOML ({error}), wanted a profile like those of 'edgedd targets'") from error
    try:
        return _target(path.stem, values)
    except TargetError as error:
        raise TargetError(f"{path}: {error}") from error


def _target(name: str, values: Mapping[str, Any]) -> Target:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise TargetError(f"its name is {name!r}, wanted small letters, digits and hyphens: rename the file")
    _only("the profile", values, {*_TEXTS, "train", "figures"})
    for key in _TEXTS:
        if not isinstance(values[key], str):
            raise TargetError(f"{key}={values[key]!r}, wanted text in quotes")
    if not values["title"]:
        raise TargetError("title is empty, wanted the name of the board")
    if values["isa"] not in ISAS:
        raise TargetError(f"isa={values['isa']!r}, wanted one of {', '.join(ISAS)}")
    if not re.fullmatch(r"(\d+\.\d+(\.\d+)?)?", values["onnxruntime_ceiling"]):
        raise TargetError(f"onnxruntime_ceiling={values['onnxruntime_ceiling']!r}, wanted like '1.23.2', or empty")
    if not isinstance(values["train"], bool):
        raise TargetError(f"train={values['train']!r}, wanted true or false")
    _only("figures", values["figures"], set(_FIGURES))
    read = {key: _figure(key, values["figures"][key]) for key in _FIGURES}
    numbers = {key: number for key, (number, _) in read.items()}
    if values["train"] and numbers["runtime_floor_bytes"] >= numbers["process_ram_bytes"]:
        raise TargetError("runtime_floor_bytes leaves nothing of process_ram_bytes, wanted train = false")
    rest = {key: values[key] for key in (*_TEXTS, "train")}
    return Target(name=name, sources={key: source for key, (_, source) in read.items()}, **rest, **numbers)


def _figure(key: str, figure: Any) -> tuple[Any, Source]:
    _only(f"figures.{key}", figure, {"value", "kind", "source"})
    value, kind, source = figure["value"], figure["kind"], figure["source"]
    allowed: type | tuple[type, ...] = int if _FIGURES[key] is int else (int, float)
    usable = isinstance(value, allowed) and not isinstance(value, bool)
    if not usable or not 0 < value < 1e15:
        what = "a whole number" if _FIGURES[key] is int else "a number"
        raise TargetError(f"figures.{key} value={value!r}, wanted {what} above 0")
    if kind not in KINDS:
        raise TargetError(f"figures.{key} kind={kind!r}, wanted one of {', '.join(KINDS)}")
    if not isinstance(source, str) or not source:
        raise TargetError(f"figures.{key} source={source!r}, wanted where the figure comes from")
    return _FIGURES[key](value), Source(kind, source)


def _only(what: str, values: Any, wanted: set[str]) -> None:
    if not isinstance(values, dict):
        raise TargetError(f"{what} is {values!r}, wanted a table of {', '.join(sorted(wanted))}")
    for key in sorted(values.keys() - wanted):
        raise TargetError(f"{what} has the unknown key {key!r}, wanted only: {', '.join(sorted(wanted))}")
    for key in sorted(wanted - values.keys()):
        raise TargetError(f"{what} lacks {key}, wanted {', '.join(sorted(wanted))}")
