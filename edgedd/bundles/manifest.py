"""A bundle's manifest.json, read and checked; hostile until then."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedd.bundles.files import (
    MAX_MANIFEST,
    MOST_BYTES,
    MOST_STUDENTS,
    NEEDED,
    OF_EACH_STUDENT,
    STUDENT_NAME,
    VERSION,
    file_of,
    most_bytes,
)
from edgedd.errors import BundleError

MOST_COMMAS, MOST_BRACKETS = 2**13, 2**11  # bound what JSON's objects take, which is up to thirty times the text
_FIRST_KEYS = {"version", "edgedd", "student", "image_shape", "classes", "mode", "target", "threads", "files"}
_ADDED = {1: set(), 2: {"micro_batch", "licence"}, 3: {"more_students"}}  # keys by the version that brought them
_MOST_AT_ONCE = {"threads": 1024, "micro_batch": 65_536}


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
    if content.count(b",") > MOST_COMMAS or content.count(b"{") + content.count(b"[") > MOST_BRACKETS:
        raise BundleError(f"{path} has more values than any, wanted a bundle's manifest: export again")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; it is truncated or altered, copy the bundle again") from error
    version = values.get("version") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path} has version={version!r}, wanted 1 to {VERSION}: copy the bundle again")
    if version > VERSION:
        raise BundleError(f"{path} has version {version}, this edgedd reads up to {VERSION}: upgrade edgedd")
    odd = set(values) ^ _FIRST_KEYS.union(*(keys for since, keys in _ADDED.items() if since <= version))
    if odd:
        names = ", ".join(sorted(odd))
        raise BundleError(f"{path} has unknown or missing keys ({names}): copy the bundle again or export it anew")
    return _checked(path, {"micro_batch": None, "licence": None, "more_students": {}} | values)


def _checked(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    shape, classes, files = (values[key] for key in ("image_shape", "classes", "files"))
    wrong = [key for key in ("edgedd", "student", "mode") if not isinstance(values[key], str)]
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        wrong.append("image_shape")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        wrong.append("classes")
    wrong += [key for key in ("target", "licence") if not isinstance(values[key], str | None)]
    wrong += [name for name in _MOST_AT_ONCE if not _is_number(name, values[name])]
    more = values["more_students"]
    if not isinstance(more, dict) or len(more) >= MOST_STUDENTS or not all(map(_is_student, more.items())):
        wrong.append("more_students")
    elif not isinstance(files, dict) or not _are_files(files, more) or values["student"] in list(more):
        wrong.append("files")
    if wrong:
        raise BundleError(f"{path} has an impossible value of {', '.join(wrong)}: copy the bundle again")
    kept = ("edgedd", "student", "mode", "target", "threads", "micro_batch", "licence", "files")
    more = {name: {"student": name, **how} for name, how in more.items()}
    fields = {"image_shape": tuple(shape), "classes": tuple(classes), "more_students": more}
    return {key: values[key] for key in kept} | fields


def _is_number(name: str, number: Any) -> bool:
    return number is None or (type(number) is int and 1 <= number <= _MOST_AT_ONCE[name])


def _is_student(item: tuple[str, Any]) -> bool:
    """A further student: its name, and its own threads and micro-batch."""
    name, how = item
    shaped = isinstance(how, dict) and set(how) == set(_MOST_AT_ONCE)
    return shaped and bool(STUDENT_NAME.fullmatch(name)) and all(_is_number(key, how[key]) for key in how)


def _are_files(files: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    """All that the students need, nothing of strangers, and each entry as it should be."""
    of_more = {file_of(student, name) for student in more for name in OF_EACH_STUDENT}
    known = set(NEEDED) | of_more <= set(files) <= set(MOST_BYTES) | of_more
    return known and all(map(_is_entry, files, files.values()))


def _is_entry(name: str, entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
        return False
    size, digest = entry["bytes"], entry["sha256"]
    return type(size) is int and 0 <= size <= (most_bytes(name) or 0) and isinstance(digest, str)
