"""What each section of a report shows, as plain values for its template; nothing here is markup."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.bundles.bundle import Bundle
from edgedd.errors import BudgetError, TargetError, printable
from edgedd.labelled_images import LabelledImages
from edgedd.planning.plan import plan_bundle
from edgedd.planning.target import THIS_MACHINE
from edgedd.report import charts, pictures
from edgedd.report.learning import Learning
from edgedd.synthetic_set import SyntheticSet

MOST_IN_A_TABLE = 12  # classes whose confusion is a table; more are a picture
MOST_CLASSES, MOST_PAIRS = 100, 12
MAX_TEXT = 2000
Section = dict[str, Any]


def head(synthetic: SyntheticSet, size: int, learning: Learning | None, data: LabelledImages | None) -> Section:
    """The sentence at the top and the figures under it."""
    form = synthetic.parameterization
    shape = " x ".join(map(str, form.shape))
    stored = [f"{key} {value}" for key, value in form.as_dict().items() if key not in ("kind", "shape")]
    tiles = [("bytes of the set", f"{synthetic.nbytes:,}"), ("images a class", f"{synthetic.ipc:,}")]
    if size != synthetic.nbytes:
        tiles.append(("bytes in all", f"{size:,}"))
    pixels = int(np.prod(form.shape)) * synthetic.count
    tiles.append(("of the images as 8-bit pixels", percent(synthetic.nbytes / pixels)))
    if learning:
        tiles.append((f"{learning.student} trains here", f"{learning.seconds:.1f} s"))
        if learning.accuracy is not None and data:
            tiles.append((f"test accuracy on {Path(data.name).name}", percent(learning.accuracy)))
    count = f"{synthetic.count:,} synthetic images of {shape} for {len(synthetic.classes)} classes"
    return {"sentence": f"{count}, stored as {form.kind} ({', '.join(stored)}).", "tiles": tiles}


def images(synthetic: SyntheticSet) -> Section:
    """Decoded images by class."""
    strips = pictures.by_class(synthetic)
    return {"strips": strips, "more": len(synthetic.classes) - len(strips), "ipc": synthetic.ipc}


def factors(synthetic: SyntheticSet) -> Section:
    """What is stored, and the soft labels."""
    labels = pictures.soft_labels(synthetic)
    caption = "soft labels: a row a class, the mean of its images' labels; darker is more"
    return {"pictures": [*pictures.of_factors(synthetic), pictures.heat(labels, caption)]}


def accuracy(rows: Sequence[Section], synthetic: SyntheticSet, learning: Learning | None) -> Section | None:
    """Accuracy against bytes, and a table; None where there is nothing to show."""
    every = list(rows)
    if learning and learning.accuracy is not None:
        here = {"name": "trained for this page", "short": "this page", "student": learning.student, "spread": 0.0}
        here |= {"accuracy": learning.accuracy, "bytes": synthetic.nbytes, "seconds": learning.seconds}
        every.insert(0, here | {"peak_bytes": None, "of_set": True})
    if not every:
        return None
    sized = [row for row in every if row["bytes"]]
    points = [
        (row["bytes"], row["accuracy"], row["spread"], row["short"], "ours" if row["of_set"] else "theirs")
        for row in sized
    ]
    table = [
        (
            row["name"] if row["name"] == row["student"] or not row["student"] else f"{row['name']} ({row['student']})",
            f"{100 * row['accuracy']:.1f}" + (f" ± {100 * row['spread']:.1f}" if row["spread"] else ""),
            "" if row["bytes"] is None else f"{row['bytes']:,.0f}",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        )
        for row in every
    ]
    titles = ("", "accuracy, %", "bytes", "seconds", "peak MB")
    told = [k for k in range(len(titles)) if k < 2 or any(row[k] for row in table)]
    return {
        "chart": charts.bytes_chart("Test accuracy against bytes", points) if len({p[0] for p in points}) > 1 else None,
        "titles": [titles[k] for k in told],
        "rows": [[row[k] for k in told] for row in table],
    }


def classes(synthetic: SyntheticSet, learning: Learning | None) -> Section | None:
    """Accuracy of each class and what is taken for what; None without test images."""
    if learning is None or learning.confusion is None:
        return None
    counts, names = learning.confusion, [printable(name) for name in synthetic.classes]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = sorted(range(len(names)), key=lambda k: -shares[k, k])
    wrong = shares - np.diag(np.diag(shares))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(names[i // len(names)], names[i % len(names)], percent(wrong.flat[i])) for i in largest if wrong.flat[i]]
    small = len(names) <= MOST_IN_A_TABLE
    found: Section = {
        "bars": [(names[k], percent(shares[k, k]), round(100 * shares[k, k], 1)) for k in order[:MOST_CLASSES]],
        "more": max(0, len(names) - MOST_CLASSES),
        "count": int(counts.sum()),
        "pairs": pairs,
        "names": names if small else (),
        "cells": [[(round(100 * share), round(share, 3)) for share in row] for row in shares] if small else (),
    }
    caption = "a row a true class, a column a predicted one; darker is more"
    return found | {"picture": None if small else pictures.heat(shares, caption)}


def memory(bundle: Path, student: str | None, target: str | None) -> Section | None:
    """The planner's parts of a training's peak memory; None on a machine that cannot be told of."""
    board = target or Bundle.load(bundle).target or THIS_MACHINE
    try:
        plan = plan_bundle(bundle, board, student=student)
    except BudgetError as error:
        return {"refused": str(error), "board": board}
    except TargetError:
        if target:
            raise
        return None
    parts = [(name, size) for name, size in plan.memory.parts().items() if size]
    whole = max(plan.process_ram_bytes, plan.memory.total)
    left = whole - plan.memory.total
    bars = [(name, f"{size / 1e6:.1f} MB", round(100 * size / plan.memory.total, 2)) for name, size in parts]
    return {
        "refused": "",
        "board": "this machine" if board == THIS_MACHINE else board,
        "student": plan.student,
        "bars": bars,
        "total": f"{plan.memory.total / 1e6:.1f} MB",
        "share": round(100 * plan.memory.total / whole, 2),
        "budget": f"{whole / 1e6:,.0f} MB",
        "left": f"{left / 1e6:,.1f} MB",
        "threads": plan.threads,
        "micro_batch": plan.micro_batch,
    }


def curves(learned: Learning | None, data: LabelledImages | None) -> Section | None:
    """Curves of a training."""
    if learned is None:
        return None
    losses = [(float(step), float(loss)) for step, loss in enumerate(learned.losses, start=1)]
    found = [charts.line_chart("Training loss", losses, "step", "cross-entropy")]
    if len(learned.looks) > 1:
        looks = [(float(step), share) for step, share in learned.looks]
        found.append(charts.line_chart("Test accuracy", looks, "step", "%", fraction=True))
    where = f" Accuracy on the way is that of {learned.looked_at:,} test images." if data else ""
    said = f"{learned.student}, seed {learned.seed}: {learned.steps:,} steps in {learned.seconds:.1f} s of onnxruntime."
    return {"charts": found, "said": said + where}


def facts(synthetic: SyntheticSet, bundle: Bundle | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of names and values: where the set comes from, its recipe, what the bundle holds."""
    recipe = synthetic.recipe.as_dict()
    drawn = ", ".join(f"{key} {value:g}" for key, value in recipe.pop("augmentation").items() if value) or "none"
    tables = [
        ("Where it comes from", _texts((k, v) for k, v in synthetic.provenance.items() if v != "")),
        ("Recipe", _texts([*recipe.items(), ("augmentation", drawn)])),
    ]
    if bundle is not None:
        values = [("students", ", ".join(bundle.students)), ("trains", bundle.mode), ("made for", bundle.target or "-")]
        values += [("licence", bundle.licence or "not stated"), ("signed", "yes" if bundle.signed else "no")]
        values += [(name, f"{int(entry['bytes']):,} bytes") for name, entry in bundle.files.items()]
        tables.append(("The bundle", _texts(values)))
    return tables


def percent(fraction: float) -> str:
    """0.4987 -> 49.9 %."""
    return f"{100 * fraction:.1f} %"


def _texts(values: Any) -> list[tuple[str, str]]:
    return [(printable(str(name))[:MAX_TEXT], printable(str(value))[:MAX_TEXT]) for name, value in values]
