"""Write a target profile: TOML as `edgedd.planning.target` reads it."""

import json
from pathlib import Path

from edgedd.atomic import write_bytes
from edgedd.planning.target import Target


def write_target(path: Path, target: Target) -> None:
    """Put the profile at `path`, whole or not at all. Raises SettingError when it cannot be written."""
    write_bytes(path, target_text(target).encode())


def target_text(target: Target) -> str:
    """The profile, all of it but the name, which is that of the file; figures that are no whole numbers in 4 digits."""
    lines = [f"title = {_text(target.title)}", f"train = {str(target.train).lower()}"]
    lines += [f"{key} = {_text(getattr(target, key))}" for key in ("isa", "onnxruntime_ceiling")]
    lines += [f"{key} = {_text(getattr(target, key))}" for key in ("note", "why_not_train") if getattr(target, key)]
    for name, source in target.sources.items():
        lines += ["", f"[figures.{name}]", f"value = {_number(getattr(target, name))}"]
        lines += [f"kind = {_text(source.kind)}", f"source = {_text(source.text)}"]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    """Whole numbers as they are, others with four digits; always with a point, as TOML wants of a float."""
    if isinstance(value, int):
        return f"{value:_}"
    text = f"{value:.4g}"
    return text if "." in text or "e" in text else f"{text}.0"
