"""The metadata of a synthetic-set file, format versions 1 to 3 (docs/format.md): JSON to checked fields and back."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgedd.errors import FormatError, SettingError
from edgedd.parameterization import Parameterization, parameterization_from_dict
from edgedd.recipe import Recipe

VERSION = 3
FIRST_VERSION = {"pixels": 1, "low_rank": 1, "formation": 2, "shared_basis": 2, "dct": 3}
MAX_CLASSES = 4096
MAX_NAME = 256
MOST_COMMAS, MOST_BRACKETS = 2**13, 2**11  # bound the objects made of JSON, which take up to thirty times its bytes
_KEYS = ("version", "parameterization", "recipe", "classes", "provenance")
_RECIPE_KEYS = {field.name for field in fields(Recipe)}


def to_text(
    parameterization: Parameterization, recipe: Recipe, classes: tuple[str, ...], provenance: Mapping[str, Any]
) -> str:
    """The metadata as compact JSON. Raises SettingError for provenance that JSON cannot hold."""
    values = (
        FIRST_VERSION[parameterization.kind],
        parameterization.as_dict(),
        recipe.as_dict(),
        list(classes),
        dict(provenance),
    )
    try:
        text = _dumps(dict(zip(_KEYS, values, strict=True)))
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingError(f"the set's provenance or classes cannot be written as JSON: {error}") from error
    return text


def from_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a file -> parameterization, recipe, classes, provenance. Raises FormatError or SettingError."""
    stored = header.get("__metadata__")
    if not isinstance(stored, dict) or set(stored) != {"edgedd"} or not isinstance(stored["edgedd"], str):
        raise FormatError("no metadata key 'edgedd' alone: this is not an edgedd synthetic set")
    return from_text(stored["edgedd"])


def from_text(text: str) -> dict[str, Any]:
    """The inverse of `to_text`. Raises FormatError or SettingError."""
    values = strict_json("metadata edgedd", text)
    version = values.get("version") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise FormatError(f"metadata version={version!r}, wanted 1 to {VERSION}")
    if version > VERSION:
        raise FormatError(f"format version {version}, this edgedd reads up to {VERSION}: upgrade edgedd")
    _only("metadata", values, set(_KEYS))
    for key in ("parameterization", "recipe", "provenance"):
        if not isinstance(values[key], dict):
            raise FormatError(f"metadata {key} is not an object")
    _only("metadata recipe", values["recipe"], _RECIPE_KEYS)
    parameterization = parameterization_from_dict(values["parameterization"])
    if version < (first := FIRST_VERSION[parameterization.kind]):
        raise FormatError(
            f"kind={parameterization.kind!r} in a file of format version {version}, wanted version {first}"
        )
    return {
        "parameterization": parameterization,
        "recipe": Recipe.from_dict(values["recipe"]),
        "classes": class_names(values["classes"]),
        "provenance": values["provenance"],
    }


def strict_json(what: str, text: str) -> Any:
    """JSON with every key once, finite numbers and text that is valid Unicode. Raises FormatError naming `what`."""
    if text.count(",") > MOST_COMMAS or text.count("{") + text.count("[") > MOST_BRACKETS:
        most = f"{MOST_COMMAS} values or {MOST_BRACKETS} objects and lists"
        raise FormatError(f"{what} has more than {most}, wanted the header of a synthetic set")
    try:
        values = json.loads(text, object_pairs_hook=_unique)
        _dumps(values)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON ({error}); the file is truncated or altered, copy it again") from error
    return values


def class_names(names: Any) -> tuple[str, ...]:
    """Check a list of class names: 2 to 4096 different ones of 1..256 characters, none of them a control character."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError("classes is not a list of names")
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise FormatError(f"classes has {len(names)} names, wanted 2 to {MAX_CLASSES} different ones")
    for name in names:
        if not 1 <= len(name) <= MAX_NAME or re.search(r"[\x00-\x1f\x7f]", name):
            raise FormatError(f"class name {name!r}, wanted 1 to {MAX_NAME} characters and no control characters")
    return tuple(names)


def _dumps(values: Any) -> str:
    """Compact JSON; ValueError for a number that is not finite or text that is not valid Unicode."""
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("a key stands twice, wanted each once")
    return result


def _only(what: str, values: Mapping[str, Any], wanted: set[str]) -> None:
    odd = values.keys() ^ wanted
    if odd:
        raise FormatError(f"{what} has unknown or missing keys ({', '.join(sorted(odd))}), wanted {sorted(wanted)}")
