"""The tables of accuracy per byte, and of where it is lost, from benchmarks/results."""

import math
import re
from collections.abc import Callable
from statistics import mean
from typing import Any

from stored import read_all

MADE_BY = (
    "Mean and sample deviation over trainings, in onnxruntime but where it says torch. "
    "`python benchmarks/accuracy_per_byte.py NAME DATA --student STUDENT --seeds N`, with `--bytes N --stores webp` or "
    "`--set FILE [--epochs N] [--device cuda | --torch]`; each row's command, recipe and machine are in "
    "`benchmarks/results/accuracy_per_byte_NAME.json`."
)
USUAL = "convnet3-w32"
SELECTIONS = ("random", "herding", "kmeans")
STORES = {
    "webp": "WebP",
    "jpeg": "JPEG",
    "down-scaled": "scaled down",
    "2-bit": "2-bit",
    "4-bit": "4-bit",
    "uint8": "uint8",
}


def accuracy_per_byte() -> str:
    """For each data set, student and budget the best sets from a processor and a GPU, and the best real images."""
    lines = [
        "| data | student | bytes | trained on | images a class | test accuracy | trainings |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in read_all("accuracy_per_byte_"):
        rows = of_convnets(result["rows"])
        kept = best(rows, lambda row: (_real(row), _by_gpu(row)))
        for row in sorted(kept, key=_place):
            lines.append(_line(result["data"]["name"], row))
    return "\n".join([*lines, "", MADE_BY])


def stores() -> str:
    """For each data set and budget the best set that a processor made, and real images in each kind of store."""
    lines = [
        f"| data | bytes at most | synthetic set | {' | '.join(STORES.values())} |",
        f"|---|---|---|{'---|' * len(STORES)}",
    ]
    for result in read_all("accuracy_per_byte_"):
        usual = [row for row in _by_recipe(result["rows"]) if row["student"] == USUAL and not _by_gpu(row)]
        kept = best(usual, lambda row: row.get("storage"))
        for budget in sorted({row["budget_bytes"] for row in kept if "storage" in row}):
            here = {row.get("storage"): row for row in kept if _size(row["budget_bytes"]) == _size(budget)}
            cells = [_share(here[name]) if name in here else "" for name in (None, *STORES)]
            lines.append(f"| {' | '.join([result['data']['name'], f'{budget:,}', *cells])} |")
    note = (
        f"{USUAL}; each store's quality, size, labels, choice of images and recipe are chosen on validation. Empty: "
        "not one image a class fits. Commands as for README's table, with the store after `--stores`."
    )
    return "\n".join([*lines, "", note])


def of_convnets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of README's table and of the picture; other students have a table of their own."""
    return [row for row in rows if row["student"].startswith("convnet")]


def other_students() -> str:
    """For each set that trained students that are no ConvNet, their accuracy and how far it is from the usual one's."""
    found = []
    for result in read_all("accuracy_per_byte_"):
        rows = _by_recipe(result["rows"])
        usual = [row for row in sorted(rows, key=_place) if row["student"] == USUAL]
        others = [row for row in rows if row not in of_convnets(rows)]
        for row in usual:
            theirs = {other["student"]: other for other in others if _source(other) == _source(row)}
            found += [(result["data"]["name"], row, theirs)] if theirs else []
    names = sorted({name for *_, theirs in found for name in theirs})
    lines = [
        f"| data | bytes | trained on | {USUAL} | {' | '.join(names)} | trainings |",
        f"|---|---|---|---|{'---|' * len(names)}---|",
    ]
    for data, row, theirs in found:
        cells = [data, f"{row['bytes']:,}", _what(row), _share(row)]
        cells += [_beside(theirs.get(name), row) for name in names]
        counts = sorted({len(each["accuracies"]) for each in (row, *theirs.values())})
        lines.append(f"| {' | '.join([*cells, ' or '.join(map(str, counts))])} |")
    note = (
        "In onnxruntime but where it says torch; in brackets what is lost or won against the first. Commands as for "
        "README's table."
    )
    return "\n".join([*lines, "", note])


def loss_by_part() -> str:
    """A line a part that was exchanged, the accuracy of each set beside the others."""
    results = read_all("loss_by_part_")
    found = [{row["part"]: row for row in result["rows"]} for result in results]
    steps = {part: row["recipe"]["steps"] for rows in found for part, row in rows.items()}
    firsts = [result["rows"][0] for result in results]
    heads = [f"{result['data']}, {row['bytes']:,} bytes" for result, row in zip(results, firsts, strict=True)]
    lines = [f"| trained on | steps | {' | '.join(heads)} |", f"|---|---|{'---|' * len(found)}"]
    for part, count in steps.items():
        cells = [f"{100 * mean(rows[part]['accuracies']):.1f} %" if part in rows else "" for rows in found]
        lines.append(f"| {part} | {count:,} | {' | '.join(cells)} |")
    trainings = sorted({len(row["accuracies"]) for rows in found for row in rows.values()})
    note = (
        f"Validation accuracy of convnet3-w{firsts[0]['width']} by the set's recipe, mean of trainings "
        f"({' or '.join(map(str, trainings))} each). All real images have hard labels. Few: as many as the set has, "
        "with a teacher's labels; stored: in the set's bytes;"
    )
    return "\n".join([*lines, "", f"{note} {', '.join('`' + row['command'] + '`' for row in firsts)}."])


def steps_asked_for(row: dict[str, Any]) -> int | None:
    """Those of a training from a set, where they are not its recipe's."""
    own = "storage" in row or row["steps"] == row["training_recipe"]["steps"]
    return None if own else int(row["steps"])


def _by_recipe(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For tables that have no place for steps."""
    return [row for row in rows if steps_asked_for(row) is None]


def _source(row: dict[str, Any]) -> Any:
    return row.get("file"), row.get("trained_on"), row["bytes"]


def _share(row: dict[str, Any]) -> str:
    spread = f" ± {100 * row['spread']:.1f}" if len(row["accuracies"]) > 1 else ""
    return f"{100 * row['accuracy']:.1f}{spread} %"


def _beside(row: dict[str, Any] | None, usual: dict[str, Any]) -> str:
    if row is None:
        return ""
    by = " in torch" if row["runtime"] == "torch" else ""
    return f"{_share(row)} ({100 * (row['accuracy'] - usual['accuracy']):+.1f}){by}"


def best(rows: list[dict[str, Any]], kind: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """Of rows of one kind and student, the most accurate at each budget; budgets are four times apart."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["accuracy"]):
        kept[row["student"], kind(row), _size(row["budget_bytes"])] = row
    return list(kept.values())


def _size(budget: float) -> int:
    """Of a row's budget: a set's are its own bytes, those of real images may be many more than what they take."""
    return round(math.log2(budget))


def _real(row: dict[str, Any]) -> bool:
    return "storage" in row or row.get("method") in SELECTIONS


def _by_gpu(row: dict[str, Any]) -> bool:
    return "--device cuda" in (row.get("distilled_by") or "")


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["student"], row["budget_bytes"], "storage" in row, -row["accuracy"]


def _what(row: dict[str, Any]) -> str:
    if row.get("method") in SELECTIONS:
        return f"real images: the set's form ({row['method']}; teacher labels)"
    if "storage" not in row:
        minutes, of = re.search(r"--minutes (\S+)", row.get("distilled_by") or ""), " of a GPU" if _by_gpu(row) else ""
        return f"**synthetic set** ({row['method']}{f', {minutes[1]} minutes{of}' if minutes else ''})"
    return f"real images: {STORES[row['storage']]} ({row['setting']}; {row['selection']}; {row['labels']} labels)"


def _line(data: str, row: dict[str, Any]) -> str:
    steps = steps_asked_for(row)
    of = f" of {steps:,} steps" if steps else ""
    trainings = f"{len(row['accuracies'])}{of}{' in torch' if row['runtime'] == 'torch' else ''}"
    cells = (data, row["student"], f"{row['bytes']:,}", _what(row), str(row["ipc"]), _share(row), trainings)
    return f"| {' | '.join(cells)} |"
