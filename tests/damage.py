"""Files damaged at random, and what reading one may do: load, or raise one line that names it, in little memory."""

import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgedd
from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import MANIFEST, SET
from edgedd.distillation.checkpoint import Checkpoint
from edgedd.distillation.expert_files import MANIFEST as EXPERTS
from edgedd.distillation.expert_files import ExpertFolder
from edgedd.errors import LONGEST_MESSAGE, EdgeddError
from edgedd.parameters import ParameterSpec
from edgedd.planning.target import load_target
from edgedd.synthetic_set import SyntheticSet
from edgedd.weights import load_weights

FLOOR_BYTES = 5 * 2**18  # what reading takes besides: a mebibyte that Pillow reads at once, messages, a few objects
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "..", "/etc/passwd"),
    *("\0", "\ud800", "\x1b[2J\n", "x" * 5000, [], {}, [[]], [1, 2, 3], {"a": 1}, ["a"] * 300, [[[[[[1]]]]]]),
)
BYTES = (b"\0", b"\xff", b"{", b"[", b'"', b"\n", b"\\", b"PK\x01\x02", b"PK\x05\x06", b"=", b"9" * 30, b"-", b"e9")


SPECS = {name: ParameterSpec((4, 3, 3), "zeros") for name in ("first", "second")}
RUN = {"seed": 0}


def checkpoint_of(path: Path) -> Checkpoint:
    """The one at `path`."""
    return Checkpoint(path.with_name(path.name.removesuffix(".checkpoint")), RUN)


def read_experts(path: Path) -> None:
    folder = ExpertFolder.open(path)
    for expert in range(folder.count):
        for epoch in range(folder.epochs + 1):
            folder.weights(expert, epoch)
    folder.part(folder.count)


def opened_bundle(path: Path) -> None:
    bundle = Bundle.load(path)
    SyntheticSet.load(bundle.file(SET)).soft_labels(slice(None))


READERS: dict[str, Callable[[Path], object]] = {
    "set": lambda path: SyntheticSet.load(path).soft_labels(slice(None)),
    "compact": lambda path: SyntheticSet.load(path).soft_labels(slice(None)),
    "bundle": opened_bundle,
    "archive": opened_bundle,
    "target": load_target,
    "data": lambda path: edgedd.load_data(str(path)),
    "packed data": lambda path: edgedd.load_data(str(path)),
    "images": lambda path: edgedd.load_data(str(path)),
    "weights": lambda path: load_weights(path, SPECS),
    "checkpoint": lambda path: checkpoint_of(path).load(),
    "experts": read_experts,
}
FOLDERS = ("bundle", "images", "experts")


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Some bytes changed, removed, repeated, put in or cut off."""
    out = bytearray(content)
    for _ in range(int(generator.choice([1, 1, 2, 3, 8]))):
        first, last = sorted(generator.integers(0, len(out) + 1, 2).tolist())
        last = min(last, first + int(generator.choice([1, 2, 4, 64, 10**6])))
        match generator.integers(6):
            case 0 | 1 if first < len(out):
                out[first] ^= 1 << int(generator.integers(8))
            case 2:
                out[first:last] = generator.bytes(last - first)
            case 3:
                out[first:first] = BYTES[generator.integers(len(BYTES))]
            case 4:
                del out[first:last]
            case _:
                out[first:first] = out[first:last]
    return bytes(out)


def changed_json(text: str, generator: np.random.Generator) -> str:
    """A value somewhere within replaced, removed, or standing under another key."""
    root = values = json.loads(text)
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        key = keys[generator.integers(len(keys))]
        inner = values[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.7:
            values = inner
            continue
        match generator.integers(4):
            case 0 if isinstance(values, dict):
                values[str(VALUES[generator.integers(10, 18)])] = inner
            case 1:
                del values[key]
            case _:
                values[key] = VALUES[generator.integers(len(VALUES))]
        return json.dumps(root)


def damage(kind: str, whole: Path, copy: Path, seed: int) -> Path:
    """A damaged copy of `whole`, at `copy`; of a folder one file is damaged, and its manifest half of the time."""
    generator = np.random.default_rng(seed)
    if kind in FOLDERS:
        if not copy.exists():
            shutil.copytree(whole, copy)
        names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
        for name in names:
            shutil.copyfile(whole / name, copy / name)
        first = next((name for name in names if name in (MANIFEST, EXPERTS)), names[0])
        name = first if generator.random() < 0.5 else names[generator.integers(len(names))]
        (copy / name).write_bytes(_spoiled(kind, name, (whole / name).read_bytes(), generator))
    elif kind == "archive" and generator.random() < 0.4:
        _damaged_entry(whole, copy, generator)
    else:
        copy.write_bytes(_spoiled(kind, whole.name, whole.read_bytes(), generator))
    return copy


def _spoiled(kind: str, name: str, content: bytes, generator: np.random.Generator) -> bytes:
    if generator.random() < 0.5 and name in (MANIFEST, EXPERTS):
        return changed_json(content.decode(), generator).encode()
    if generator.random() < 0.5 and kind == "set":
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if generator.random() < 0.6:
            header["__metadata__"]["edgedd"] = changed_json(header["__metadata__"]["edgedd"], generator)
            text = json.dumps(header).encode()
        else:
            text = changed_json(json.dumps(header), generator).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]
    return damaged(content, generator)


def _damaged_entry(whole: Path, copy: Path, generator: np.random.Generator) -> None:
    """A sound zip of damaged contents."""
    with zipfile.ZipFile(whole) as packed, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as out:
        names = packed.namelist()
        chosen = MANIFEST if generator.random() < 0.5 else names[generator.integers(len(names))]
        for name in names:
            content = packed.read(name)
            out.writestr(name, _spoiled("bundle", name, content, generator) if name == chosen else content)


def read(kind: str, path: Path) -> bool:
    """Whether the file loads; checks what an error says and what memory was taken. Needs tracemalloc started."""
    size = sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file())
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        READERS[kind](path)
        loaded = True
    except EdgeddError as error:
        message = str(error)
        assert path.name in message and message.isprintable() and len(message) <= LONGEST_MESSAGE, message
        loaded = False
    taken = tracemalloc.get_traced_memory()[1] - before
    assert taken <= 4 * size + FLOOR_BYTES, f"{taken} bytes to read {size}"
    return loaded
