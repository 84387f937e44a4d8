"""The card of a bundle (CARD.md): what it was distilled from and how, in words and tables for people."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgedd.errors import SettingError, printable
from edgedd.json_file import read_json
from edgedd.synthetic_set import SyntheticSet

NO_LICENCE = "not stated: ask whoever gave you the bundle before you pass it on"
MAX_CELL, MAX_CARD = 500, 16_000  # characters
SHOWN_CLASSES = 100
MAX_ACCURACY_BYTES = 2**20
MAX_ROWS = 100
Row = Mapping[str, Any]


def card(
    synthetic: SyntheticSet,
    facts: Mapping[str, Any],
    sizes: Mapping[str, int],
    accuracies: Sequence[Row] = (),
) -> str:
    """Markdown for people; whatever comes from the set or from options is shown as text, never as markup.

    Args:
        synthetic: the set, whose provenance and recipe are told.
        facts: of the manifest: student, more_students, mode, target, licence and edgedd are told.
        sizes: bytes of the other files by name.
        accuracies: rows of `edgedd.evaluate`, which are shown as they are: nobody checks them here.
    """
    form = synthetic.parameterization.as_dict()
    kind, shape = form.pop("kind"), "x".join(map(str, form.pop("shape")))
    stored = ", ".join([str(kind), *(f"{key} {value}" for key, value in form.items())])
    images = f"{synthetic.count} of {shape}, {synthetic.ipc} per class"
    recipe = synthetic.recipe.as_dict()
    augmentation = ", ".join(f"{key} {value}" for key, value in recipe.pop("augmentation").items()) or "none"
    network = [(key, facts[key] or "none") for key in ("student", "mode", "target")]
    network += [("other students", ", ".join(facts["more_students"]))] if "more_students" in facts else []
    sections = [
        f"# {_text(facts['student'])} and a synthetic set of {len(synthetic.classes)} classes",
        "Made by `edgedd export` to train on a device: `edgedd train BUNDLE -o weights.safetensors`.",
        f"**Licence:** {_text(facts['licence'] or NO_LICENCE)}",
        _table("The network", ("", ""), network),
        _table(
            "The synthetic set", ("", ""), [("images", images), ("stored as", stored), ("classes", _names(synthetic))]
        ),
        _table("Where it comes from", ("", ""), list(synthetic.provenance.items()) or [("", "not recorded")]),
        _table("Recipe", ("", ""), [*recipe.items(), ("augmentation", augmentation)]),
        _accuracy_table(accuracies),
        _table("Files", ("file", "bytes"), [(name, f"{size:,}") for name, size in sizes.items()]),
        f"Written by edgedd {_text(facts['edgedd'])}. `edgedd verify BUNDLE` checks every file against manifest.json.",
    ]
    return "\n\n".join(section for section in sections if section)[:MAX_CARD] + "\n"


def read_accuracies(path: str | os.PathLike[str]) -> list[Row]:
    """Rows that `edgedd evaluate --json` printed, from a file. Raises SettingError when it is something else."""
    wanted = "wanted what `edgedd evaluate --json` prints"
    rows = read_json(path, MAX_ACCURACY_BYTES, wanted)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ROWS or not all(map(_is_row, rows)):
        raise SettingError(f"{path} has no rows with student, accuracy and accuracies, {wanted}")
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("student"), str):
        return False
    each, spread = row.get("accuracies"), row.get("spread")
    fractions = [row.get("accuracy"), *each] if isinstance(each, list) and each else [None]
    in_range = all(isinstance(f, int | float) and not isinstance(f, bool) and 0 <= f <= 1 for f in fractions)
    return in_range and (spread is None or (isinstance(spread, int | float) and 0 <= spread <= 1))


def _accuracy_table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    cells = []
    for row in rows:
        runs = len(row["accuracies"])
        spread = f" +- {100 * row['spread']:.1f}" if runs > 1 and row.get("spread") is not None else ""
        cells.append((row["student"], f"{100 * row['accuracy']:.1f}{spread} %", runs))
    return _table("Test accuracy, as its maker measured it", ("student", "accuracy", "trainings"), cells)


def _names(synthetic: SyntheticSet) -> str:
    more = len(synthetic.classes) - SHOWN_CLASSES
    names = [*synthetic.classes[:SHOWN_CLASSES], *([f"and {more} more"] if more > 0 else [])]
    return ", ".join(name[:64] for name in names)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"## {title}\n", _row(header), _row(["---"] * len(header)), *(_row(map(_text, row)) for row in rows)]
    return "\n".join(lines)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    """One line that Markdown shows as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"([\\`*_{}\[\]()<>#|!&~])", r"\\\1", printable(text[:MAX_CELL]))
