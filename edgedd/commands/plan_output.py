"""What `plan` and `calibrate` print on stdout: the plan, the budget as bars, the alternatives; or JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from edgedd.commands.output import percent, print_json, print_table, print_targets
from edgedd.errors import printable
from edgedd.planning.result import Plan
from edgedd.planning.target import Target

BAR = 40


def print_plan(plan: Plan, *, explain: bool, as_json: bool, picture: Path | None) -> None:
    """Of `plan`."""
    if as_json:
        print_json(plan.as_dict())
        return
    form, memory = plan.parameterization, plan.memory.total
    shape = "x".join(map(str, plan.image_shape))
    expected = "" if plan.accuracy is None else f"{percent(plan.accuracy)} by a small student; "
    rows = [
        ("images", f"{shape}, {plan.num_classes} classes, {plan.ipc} per class"),
        ("stored as", f"{form_text(form.as_dict())}"),
        ("file", f"{plan.file_bytes:,} of {plan.storage_bytes:,} bytes"),
        ("trains", f"{plan.student}, {plan.mode}: {plan.steps} steps of {plan.batch} images"),
        ("on", f"{plan.threads} thread(s), {plan.micro_batch} image(s) at once each"),
        ("peak memory", f"{memory / 1e6:.1f} of {plan.process_ram_bytes / 1e6:.1f} MB"),
        ("work", f"{plan.flops / 1e12:.2f} TFLOP, about {duration(plan.seconds)}"),
        ("accuracy", f"{expected}{plan.basis}"),
    ]
    print_table(f"plan for {plan.target}", ("", ""), rows)
    _print_budget(plan)
    if explain:
        _print_alternatives(plan)
    if picture is not None:
        print(printable(str(picture)))


def form_text(form: dict[str, Any]) -> str:
    """{"kind": "low_rank", "rank": 8, "bits": 4, ...} -> low_rank, rank 8, 4 bits."""
    numbers = ("rank", "subspaces", "formation")
    said = [f"{name} {form[name]}" for name in numbers if form.get(name, 1) != 1]
    return ", ".join([form["kind"], *said, *(["half resolution"] if form.get("half") else []), f"{form['bits']} bits"])


def duration(seconds: float) -> str:
    """4000 -> 67 min."""
    for size, name, below in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < below:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def _print_budget(plan: Plan) -> None:
    """One bar a part of memory and one of storage, against the board's budgets."""
    console = Console(highlight=False)
    parts = [*plan.memory.parts().items(), ("left", plan.process_ram_bytes - plan.memory.total)]
    console.print(Text(f"memory, {plan.process_ram_bytes / 1e6:.1f} MB"))
    for name, size in parts:
        _print_bar(console, name, size, plan.process_ram_bytes, f"{size / 1e6:.1f} MB")
    console.print(Text(f"storage, {plan.storage_bytes / 1e3:.1f} kB"))
    _print_bar(console, "set", plan.file_bytes, plan.storage_bytes, f"{plan.file_bytes / 1e3:.1f} kB")


def _print_bar(console: Console, name: str, size: int, whole: int, text: str) -> None:
    eighths = round(8 * BAR * size / whole)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    console.print(Text(f"  {name:12}{text:>12} "), Text(bar, style="dim" if name == "left" else "green"), sep="")


def _print_alternatives(plan: Plan) -> None:
    rows = []
    for other in plan.alternatives:
        rows.append(
            (
                form_text(other.form.as_dict()),
                "" if other.ipc is None else other.ipc,
                "" if other.file_bytes is None else f"{other.file_bytes:,}",
                "" if other.peak_bytes is None else f"{other.peak_bytes / 1e6:.1f}",
                "" if other.seconds is None else duration(other.seconds),
                "" if other.accuracy is None else percent(other.accuracy),
                other.why_not or "picked",
            )
        )
    columns = ("stored as", "ipc", "bytes", "peak MB", "time", "accuracy", "why not")
    print_table("alternatives", columns, rows)


def print_calibration(path: Path, target: Target, as_json: bool) -> None:
    """Of `calibrate`: the profile and where it is."""
    if as_json:
        print_json({"profile": str(path), **asdict(target)})
        return
    print_targets([target], as_json)
    print(printable(str(path)))
