"""A rehearsal in a .safetensors file: the images kept, the student's parameters and optimizer, the run in progress.

Hostile until checked: nothing of the file is used before all of it fits the student and itself.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from edgedd.atomic import write_bytes
from edgedd.bundles.files import SET
from edgedd.device.rehearsal import MOST_BUFFER_BYTES, Rehearsal
from edgedd.device.rehearsal_run import Run, Settings
from edgedd.device.student import Student
from edgedd.errors import EdgeddError, FormatError
from edgedd.storage.set_metadata import class_names, strict_json

VERSION, KEY = 1, "edgedd.rehearsal"
_KEYS = {"version", "student", "set", "classes", "pending", "added", "buffer_bytes", "seed", "draws", "steps", "run"}
_RUN_KEYS = {*Settings.names(), "known", "before", "step", "misses", "best_loss", "best_step"}


def save(rehearsal: Rehearsal, path: str | os.PathLike[str]) -> None:
    """See `Rehearsal.save`."""
    student, run = rehearsal.student, rehearsal.run
    snapshot, steps = student.snapshot()
    tensors = {f"student.{name}": array for name, array in snapshot.items()}
    tensors |= rehearsal.kept.tensors("kept") | rehearsal.held.tensors("held")
    values: dict[str, Any] = {"version": VERSION, "student": student.bundle.student, "set": _set(student)}
    values |= {"classes": list(student.classes), "pending": list(rehearsal.classes[len(student.classes) :])}
    values |= {"added": sorted(rehearsal.added.items()), "buffer_bytes": rehearsal.buffer_bytes}
    values |= {"seed": rehearsal.seed, "draws": rehearsal.generator.bit_generator.state, "steps": steps, "run": None}
    if run is not None:
        tensors |= {f"best.{name}": array for name, array in run.best.items()}
        tensors["losses"] = np.array(run.losses, np.float64)
        best_loss = run.best_loss if math.isfinite(run.best_loss) else None
        settings = {name: getattr(run.settings, name) for name in Settings.names()}
        values["run"] = settings | {"known": run.known, "before": list(run.before), "step": run.step}
        values["run"] |= {"misses": run.misses, "best_loss": best_loss, "best_step": run.best_step}
    metadata = {KEY: json.dumps(values, ensure_ascii=False)}
    write_bytes(path, safetensors.numpy.save({name: tensors[name] for name in sorted(tensors)}, metadata))


def load(path: str | os.PathLike[str], student: Student) -> Rehearsal:
    """See `Rehearsal.load`."""
    path = Path(path)
    values, tensors = _read(path)
    try:
        return _restored(values, tensors, student)
    except (EdgeddError, ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        reason = str(error) if str(error) else type(error).__name__
        raise FormatError(
            f"{path} does not fit ({reason}): load it with the bundle that it was made with, or begin another"
        ) from error


def _set(student: Student) -> str:
    return str(student.bundle.files[SET]["sha256"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata and the tensors of a file. Raises FormatError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > 2 * MOST_BUFFER_BYTES:
            raise FormatError(f"{path} is no file, or too large, wanted what Rehearsal.save wrote")
        content = path.read_bytes()
        tensors = safetensors.numpy.load(content)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}; wanted what Rehearsal.save wrote") from error
    except (safetensors.SafetensorError, KeyError) as error:
        raise FormatError(f"{path} is no valid safetensors file ({error}): begin another rehearsal") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    text = header.get("__metadata__", {}).get(KEY)
    values = None if text is None else strict_json(f"{path}: its metadata", text)
    if not isinstance(values, dict) or values.get("version") != VERSION or set(values) != _KEYS:
        raise FormatError(f"{path} is no rehearsal of version {VERSION}, wanted what Rehearsal.save wrote")
    return values, tensors


def _restored(values: Mapping[str, Any], tensors: Mapping[str, np.ndarray], student: Student) -> Rehearsal:
    if (values["student"], values["set"]) != (student.bundle.student, _set(student)):
        raise FormatError(f"it is of another bundle, or of {values['student']!r}")
    rehearsal = Rehearsal(student, buffer_bytes=values["buffer_bytes"], seed=values["seed"])
    own, outputs = student.synthetic.classes, len(student.classes) + student.spare_classes
    everything = class_names([*values["classes"], *values["pending"]])
    classes = everything[: len(values["classes"])]
    if classes[: len(own)] != own or len(everything) > outputs:
        raise FormatError("its classes are others than the bundle's")
    rehearsal.kept.restore("kept", tensors, len(everything))
    rehearsal.held.restore("held", tensors, len(everything))
    rehearsal.added = {_whole(label): _whole(count) for label, count in values["added"]}
    rehearsal.generator.bit_generator.state = values["draws"]
    rehearsal.pending = everything[len(classes) :]
    present, _ = student.snapshot()
    snapshot = _like(present, tensors, "student.")
    if values["run"] is not None:
        rehearsal.run = _run(values["run"], tensors, student.parameters, len(classes))
    student.restore(snapshot, _whole(values["steps"]), classes)
    return rehearsal


def _run(
    values: Mapping[str, Any], tensors: Mapping[str, np.ndarray], parameters: Mapping[str, np.ndarray], classes: int
) -> Run:
    if set(values) != _RUN_KEYS:
        raise FormatError("its run has unknown or missing keys")
    settings = Settings(**{name: values[name] for name in Settings.names()})
    known, step, misses, best_step = (_whole(values[name]) for name in ("known", "step", "misses", "best_step"))
    before, best_loss = values["before"], values["best_loss"]
    losses = tensors["losses"]
    if not (known <= classes and best_step <= step <= settings.steps and losses.shape == (step,)):
        raise FormatError("its run is further than its settings allow")
    if len(before) != 3 or not all(each is None or 0 <= each <= 1 for each in before):
        raise FormatError("its accuracies are not between 0 and 1")
    best = _like(parameters, tensors, "best.") if best_loss is not None else {}
    run = Run(settings, known, (before[0], before[1], before[2]), step, misses, losses=losses.tolist(), best=best)
    run.best_loss, run.best_step = math.inf if best_loss is None else float(best_loss), best_step
    return run


def _like(wanted: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Tensors of the names, shapes and types of `wanted`, finite. Raises FormatError."""
    found = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    for name in sorted(wanted.keys() | found.keys()):
        given, array = found.get(name), wanted.get(name)
        if given is None or array is None or (given.shape, given.dtype) != (array.shape, array.dtype):
            raise FormatError(f"{prefix}{name} is missing, unknown or of another shape")
        if not np.isfinite(given).all():
            raise FormatError(f"{prefix}{name} has a value that is not finite")
    return found


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise FormatError(f"{number!r} is no whole number of at least 0")
    return number
