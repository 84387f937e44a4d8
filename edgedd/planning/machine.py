"""What the running machine has for this process: cores, memory that is free, control groups that limit it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class MemoryGroup(NamedTuple):
    """A control group and the names of its files that hold its limit and its use, in bytes."""

    folder: Path
    limit: str
    used: str


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes(proc: Path = PROC) -> int | None:
    """Memory that the machine can still give (MemAvailable); None where /proc does not tell."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text_of(proc / "meminfo"), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def memory_groups(proc: Path = PROC, groups: Path = CGROUPS) -> Iterator[MemoryGroup]:
    """The control groups of this process that may limit memory, v2 and v1, each with those around it."""
    for line in text_of(proc / "self" / "cgroup").splitlines():
        controllers, separator, path = line.partition(":")[2].partition(":")
        if not separator or (controllers and "memory" not in controllers.split(",")):
            continue
        top = groups / "memory" if controllers else groups
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inside = Path(path.lstrip("/"))
        for folder in (inside, *inside.parents):
            yield MemoryGroup(top / folder, *names)


def text_of(path: Path) -> str:
    """A file's text; empty when it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
