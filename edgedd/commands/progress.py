"""Progress on stderr: a bar with an ETA on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

LINE_EVERY_SECONDS = 15.0
TITLES = {
    "experts": "expert epochs",
    "networks": "networks of the pool",
    "distil": "distilling",
    "recipe": "recipe search",
    "train": "training",
    "time": "timing students",
    "try": "trying students",
    "evaluate": "evaluating",
    "baselines": "real images",
    "ranking": "gaps",
}


class ProgressReport:
    """Give `report(stage, step, total, loss)` to what runs long; use it as a context."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.begun: dict[str, float] = {}
        self.spoken = time.monotonic()

    def __enter__(self) -> "ProgressReport":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            loss = TextColumn("{task.fields[loss]}")
            self.bar = Progress(*columns, loss, console=Console(stderr=True))
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def report(self, stage: str, step: int, total: int, loss: float | None = None) -> None:
        """Step `step` of `total` of a stage is done."""
        text = "" if loss is None else f"loss {loss:.4f}"
        if self.bar:
            if stage not in self.tasks:
                self.tasks[stage] = self.bar.add_task(TITLES.get(stage, stage), total=total, loss=text)
            self.bar.update(self.tasks[stage], completed=step, total=total, loss=text)
            return
        now = time.monotonic()
        begun = self.begun.setdefault(stage, now)
        if now - self.spoken < LINE_EVERY_SECONDS and step < total:
            return
        self.spoken = now
        left = (now - begun) / max(step - 1, 1) * (total - step)
        print(f"{TITLES.get(stage, stage)} {step}/{total}, about {left:.0f} s left {text}".rstrip(), file=sys.stderr)
