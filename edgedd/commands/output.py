"""What the commands print on stdout: rich tables, or JSON."""

import json
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgedd.errors import printable
from edgedd.inspection import inspect

Row = Mapping[str, Any]
GAPS = ("hard_label_recovery", "improvement_over_random", "gap_plain")


def spoken_command(arguments: Sequence[str]) -> str:
    """The command as it goes into the provenance: file names without folders, and not where the output went."""
    words, skip = ["edgedd"], False
    for word in arguments[1:]:
        if skip or word in ("--resume", "--json") or word.startswith(("-o", "--output")):
            skip = word in ("-o", "--output") and not skip
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + (os.path.basename(value.rstrip("/")) or value))
    return shlex.join(words)


def print_json(values: Any) -> None:
    """JSON, indented."""
    print(json.dumps(values, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; numbers to the right. Cells may come from a file: they are shown as they are, never as markup."""
    table = Table(title=Text(printable(title)) if title else None, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console(soft_wrap=False).print(table)


def percent(fraction: float) -> str:
    """0.4987 -> 49.9 %."""
    return f"{100 * fraction:.1f} %"


def print_inspection(path: Path, as_json: bool) -> None:
    """Of `inspect` and `distill`: what is in the file."""
    values = inspect(path)
    if as_json:
        print_json({"file": str(path), **values})
        return
    form = values["parameterization"]
    shape = "x".join(map(str, form["shape"]))
    rank = " {0}x{0}".format(form["formation"]) if "formation" in form else ""
    rank += "".join(f", {key} {form[key]}" for key in ("rank", "subspaces") if key in form)
    rank += ", half resolution" if form.get("half") else ""
    recipe = {key: value for key, value in values["recipe"].items() if key != "augmentation"}
    augmentation = ", ".join(f"{k} {v:g}" for k, v in values["recipe"]["augmentation"].items()) or "none"
    rows = [
        ("file", f"{values['bytes']:,} bytes ({values['plain_bytes']:,} plain, {values['compact_bytes']:,} compact)"),
        *((f"  {name}", f"{size:,}") for name, size in sorted(values["parts"].items(), key=lambda part: -part[1])),
        ("images", f"{values['images']} of {shape}, {values['ipc']} per class, {len(values['classes'])} classes"),
        ("stored as", f"{form['kind']}{rank}, {form['bits']} bits"),
        ("fp32 IPC equivalent", values["fp32_ipc_equivalent"]),
        ("recipe", ", ".join(f"{key} {value}" for key, value in recipe.items())),
        ("augmentation", augmentation),
        *((key, value) for key, value in values["provenance"].items()),
    ]
    print_table(str(path), ("", ""), rows)


def print_evaluation(rows: Sequence[Row], as_json: bool) -> None:
    """Of `evaluate`."""
    if as_json:
        print_json(list(rows))
        return
    cells: list[tuple[Any, ...]] = [
        (
            row["student"],
            f"{row['bytes']:,}",
            mean_and_spread(row["accuracies"]),
            len(row["accuracies"]),
            "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        )
        for row in rows
    ]
    how = rows[0]
    title = "" if how["steps"] is None else f"recipe {how['recipe']}: {how['epochs']} epochs, {how['steps']} steps"
    title += f" in {how['runtime']}" if title else ""
    columns: tuple[str, ...] = ("student", "bytes", "test accuracy", "seeds", "seconds each")
    if "trained_on" in how:
        columns = ("trained on", "images a class", *columns)
        cells = [(row["trained_on"], row["ipc"], *cell) for row, cell in zip(rows, cells, strict=True)]
    print_table(title, columns, cells)
    for row in rows:
        if "ranking" in row:
            _print_ranking(row["student"], row["ranking"])


def _print_ranking(student: str, values: Row) -> None:
    """DD-Ranking's gaps in points, then its scores."""
    gaps = [(name, f"{100 * values[name]:+.1f} points") for name in GAPS]
    scores = [(name, f"{values[name]:.3f}") for name in ("label_robust_score", "augmentation_robust_score")]
    rows = [(name.replace("_", " "), value) for name, value in (*gaps, *scores)]
    print_table(f"{student}: gaps, and scores of DD-Ranking", ("", ""), rows)


def mean_and_spread(values: Sequence[float]) -> str:
    """Of several accuracies, with their sample standard deviation; of one, itself."""
    if len(values) == 1:
        return percent(values[0])
    return f"{100 * statistics.mean(values):.1f} +- {100 * statistics.stdev(values):.1f} %"


def print_bundle(bundle: Any, accuracies: Mapping[str, float] | None, folder: Path, as_json: bool) -> None:
    """Of `export`; accuracies by number format, where they were compared."""
    files = {path.name: path.stat().st_size for path in sorted(bundle.path.iterdir())}
    if as_json:
        compared = {"accuracies": dict(accuracies)} if accuracies else {}
        facts = {
            "bundle": str(folder),
            "student": bundle.student,
            "students": list(bundle.students),
            "mode": bundle.mode,
            "files": files,
        }
        facts |= {"archive_bytes": folder.stat().st_size} if folder.is_file() else {}
        print_json(facts | compared)
        return
    rows = [(name, f"{size:,}") for name, size in files.items()]
    print_table(f"{folder}: student {', '.join(bundle.students)}, trains {bundle.mode}", ("file", "bytes"), rows)
    if folder.is_file():
        print(f"{folder.stat().st_size:,} bytes in one file")
    for form, accuracy in (accuracies or {}).items():
        print(f"test accuracy in {form}: {100 * accuracy:.2f} %")


def print_training(row: Row, as_json: bool) -> None:
    """Of `train`."""
    if as_json:
        print_json(row)
        return
    test = "" if row["accuracy"] is None else f", test accuracy {percent(row['accuracy'])}"
    print(f"{row['student']}: {row['steps']} steps in {row['seconds']:.1f} s, loss {row['loss']:.4f}{test}")
    print(printable(row["weights"]))


def print_predictions(rows: Sequence[Row], as_json: bool) -> None:
    """Of `predict`."""
    if as_json:
        print_json(list(rows))
        return
    print_table(
        "", ("file", "class", "probability"), [(r["file"], r["class"], percent(r["probability"])) for r in rows]
    )


def print_targets(targets: Sequence[Any], as_json: bool) -> None:
    """Of `targets`: a line a board, or everything about one."""
    if as_json:
        print_json([asdict(target) for target in targets])
        return
    if len(targets) > 1:
        rows = [
            (t.name, f"{t.process_ram_bytes / 1e6:.0f} MB", t.cores, t.isa, "yes" if t.train else "no") for t in targets
        ]
        print_table("", ("target", "process RAM", "cores", "ISA", "trains"), rows)
        print("edgedd targets NAME: everything about one; this-machine: the one you are on")
        return
    target = targets[0]
    table = Table(title=Text(printable(f"{target.name}: {target.title}")), title_justify="left", show_lines=True)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("where it comes from", overflow="fold")
    for key, source in target.sources.items():
        value = getattr(target, key)
        number = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        table.add_row(key, number, Text(printable(f"{source.kind}: {source.text}")))
    Console(soft_wrap=False).print(table)
    newest = f", onnxruntime up to {target.onnxruntime_ceiling}" if target.onnxruntime_ceiling else ""
    print(f"{target.isa}{newest}; {'trains' if target.train else 'only infers'}")
    for line in (target.why_not_train, target.note):
        if line:
            Console(soft_wrap=False).print(Text(printable(line)))


def print_demo(result: Row, as_json: bool) -> None:
    """Of `demo`."""
    if as_json:
        print_json(result)
        return
    rows = [
        (row["what"], f"{row['bytes']:,}", row["ipc"], percent(row["accuracy"]), row["seeds"]) for row in result["rows"]
    ]
    title = f"digits, {result['student']} trained in onnxruntime; {result['seconds']:.0f} s in all"
    print_table(title, ("trained on", "bytes", "ipc", "test accuracy", "seeds"), rows)
    for name, path in result["files"].items():
        print(printable(f"{name}: {path}"))
