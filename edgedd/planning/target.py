"""Boards and what a process may use on them: one TOML file a board, under `targets/`.

Every figure states where it comes from: measured by us, published by others, or estimated. One rule gives
`effective_gflops` of all shipped boards: 35 % of the float32 matrix product, the lower of what training at width 64
reached on two x86-64 machines (61 % on the other, benchmarks/results/device_step.json). The product is taken as twice
Linpack's float64 where that is published, else as 40 % of the float32 peak on out-of-order cores, 30 % on in-order ones
and 17 % on RISC-V: what Linpack reaches of its peak on the Raspberry Pi 4 and 5, the UNO Q and the JH7110. The peak
counts 16 FLOP a cycle and core on A76 and A78, 8 on A53 and A72, 4 on A8 and A35, 2 on A7 and wherever there are no
vectors.

A file of the same form under `~/.config/edgedd/targets/` (or `$XDG_CONFIG_HOME`) is a board of the user's own, or takes
the place of the shipped board of its name, for figures measured on it.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgedd.errors import TargetError

ISAS = ("aarch64", "armv7l", "x86_64", "riscv64", "xtensa")
KINDS = ("measured", "published", "estimated")
THIS_MACHINE = "this-machine"
MAX_FILE_BYTES = 2**14
MOST_DOTS = 512  # what tomllib takes grows with the square of the parts of a dotted key
_FIGURES = {
    "process_ram_bytes": int,
    "storage_bytes": int,
    "cores": int,
    "effective_gflops": float,
    "runtime_floor_bytes": int,
}
_CALIBRATED = {
    "core_product_gflops": float,
    "core_move_gbytes": float,
    "node_microseconds": float,
    "parallel_gain": float,
}
_TEXTS = ("title", "isa", "onnxruntime_ceiling")
_OPTIONAL = ("note", "why_not_train")


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
        train: whether it may train; False means that it only infers, for the reason in `why_not_train`.
        process_ram_bytes: memory that one process may use, not that of the board.
        storage_bytes: room for one synthetic set, as a file.
        cores: CPU cores.
        isa: aarch64, armv7l, x86_64, riscv64 or xtensa.
        onnxruntime_ceiling: newest onnxruntime that runs there, such as "1.23.2"; empty where no limit is known.
        effective_gflops: float32 GFLOP/s that training is expected to reach on all cores together.
        runtime_floor_bytes: resident memory of Python with numpy and onnxruntime loaded, before any work.
        sources: where each figure comes from, by its name.
        note: what else people should know of it, in one line; may be empty.
        why_not_train: why it only infers, in one line; empty where it trains.
        core_product_gflops, core_move_gbytes, node_microseconds, parallel_gain: how fast it trains, by kind of work
            (see edgedd.planning.training_cost), where `edgedd calibrate` measured it; None elsewhere.
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
    note: str = ""
    why_not_train: str = ""
    core_product_gflops: float | None = None
    core_move_gbytes: float | None = None
    node_microseconds: float | None = None
    parallel_gain: float | None = None


def targets() -> tuple[str, ...]:
    """Names of the boards that come with edgedd and of the user's own, in order."""
    return tuple(sorted(_files()))


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """A board by name, or from a TOML file of your own by path; "this-machine" is the one this runs on.

    Raises:
        TargetError: unknown name, unreadable file, unknown or missing key, or an impossible value.
    """
    text, files = os.fspath(name_or_path), _files()
    if text in files:
        return _read(files[text])
    if text == THIS_MACHINE:
        from edgedd.planning.this_machine import this_machine

        return this_machine()
    if text.endswith(".toml") or os.sep in text:
        return _read(Path(text))
    names = (*sorted(files), THIS_MACHINE)
    nearest = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise TargetError(f"unknown target {text!r}, wanted one of: {', '.join(names)}, or a .toml file{hint}")


def training_target(name_or_path: str | os.PathLike[str]) -> Target:
    """`load_target` of a board that trains. Raises TargetError for one that only infers as well, with the reason."""
    board = load_target(name_or_path)
    if not board.train:
        raise TargetError(
            f"{board.name} only infers ({board.why_not_train}), wanted a board that trains: see edgedd targets"
        )
    return board


def user_folder() -> Path:
    """Where the user's own profiles lie, whether it exists or not."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(config if os.path.isabs(config) else os.path.expanduser("~/.config")) / "edgedd" / "targets"


def _files() -> dict[str, Path]:
    """Profiles by name; the user's own replace the shipped ones."""
    return {path.stem: path for folder in (_shipped_folder(), user_folder()) for path in folder.glob("*.toml")}


def _shipped_folder() -> Path:
    """`edgedd/targets` in an installed wheel, `targets` beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "targets"
    return inside if inside.is_dir() else package.parent / "targets"


def _read(path: Path) -> Target:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise TargetError(f"{path} is larger than {MAX_FILE_BYTES} bytes, wanted a target profile")
        if content.count(b".") > MOST_DOTS:
            raise TargetError(f"{path} has more than {MOST_DOTS} dots, wanted a target profile")
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
    except RecursionError as error:
        raise TargetError(f"{path} nests too deeply, wanted a profile like those of 'edgedd targets'") from error


def _target(name: str, values: Mapping[str, Any]) -> Target:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise TargetError(f"its name is {name!r}, wanted small letters, digits and hyphens: rename the file")
    _only("the profile", values, {*_TEXTS, "train", "figures"}, _OPTIONAL)
    for key in ("title", *_OPTIONAL):
        if key in values:
            _line(key, values[key])
    if values["isa"] not in ISAS:
        raise TargetError(f"isa={values['isa']!r}, wanted one of {', '.join(ISAS)}")
    ceiling = values["onnxruntime_ceiling"]
    if not isinstance(ceiling, str) or not re.fullmatch(r"(\d+\.\d+(\.\d+)?)?", ceiling):
        raise TargetError(f"onnxruntime_ceiling={ceiling!r}, wanted like '1.23.2', or empty")
    figures = values["figures"]
    calibrated = isinstance(figures, dict) and not _CALIBRATED.keys().isdisjoint(figures)
    _only("figures", figures, {*_FIGURES, *(_CALIBRATED if calibrated else ())})
    read = {key: _figure(key, figure) for key, figure in figures.items()}
    numbers = {key: number for key, (number, _) in read.items()}
    _check_training(values, numbers)
    rest = {key: values[key] for key in (*_TEXTS, "train", *_OPTIONAL) if key in values}
    return Target(name=name, sources={key: source for key, (_, source) in read.items()}, **rest, **numbers)


def _check_training(values: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    train, reason = values["train"], "why_not_train" in values
    if not isinstance(train, bool):
        raise TargetError(f"train={train!r}, wanted true or false")
    if train and reason:
        raise TargetError("why_not_train beside train = true, wanted it only with train = false")
    if not train and not reason:
        raise TargetError("the profile lacks why_not_train, wanted the reason for train = false")
    if train and numbers["runtime_floor_bytes"] >= numbers["process_ram_bytes"]:
        raise TargetError("runtime_floor_bytes leaves nothing of process_ram_bytes, wanted train = false")


def _figure(key: str, figure: Any) -> tuple[Any, Source]:
    _only(f"figures.{key}", figure, {"value", "kind", "source"})
    value, kind, source = figure["value"], figure["kind"], figure["source"]
    number = _FIGURES.get(key, float)
    allowed: type | tuple[type, ...] = int if number is int else (int, float)
    usable = isinstance(value, allowed) and not isinstance(value, bool)
    if not usable or not 0 < value < 1e15:
        what = "a whole number" if number is int else "a number"
        raise TargetError(f"figures.{key} value={value!r}, wanted {what} above 0")
    if kind not in KINDS:
        raise TargetError(f"figures.{key} kind={kind!r}, wanted one of {', '.join(KINDS)}")
    return number(value), Source(kind, _line(f"figures.{key} source", source))


def _line(key: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise TargetError(f"{key}={text!r}, wanted one line of text")
    return text


def _only(what: str, values: Any, wanted: set[str], optional: Collection[str] = ()) -> None:
    if not isinstance(values, dict):
        raise TargetError(f"{what} is {values!r}, wanted a table of {', '.join(sorted(wanted))}")
    for key in sorted(values.keys() - wanted - set(optional)):
        known = ", ".join(sorted({*wanted, *optional}))
        raise TargetError(f"{what} has the unknown key {key!r}, wanted only: {known}")
    for key in sorted(wanted - values.keys()):
        raise TargetError(f"{what} lacks {key}, wanted {', '.join(sorted(wanted))}")
