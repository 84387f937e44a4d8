"""Whether a training step fits into the memory that is free, asked before it is taken; Linux only."""

import re
from pathlib import Path

from edgedd import memory_model
from edgedd.bundle import TRAIN_STEP
from edgedd.device.sessions import Sessions
from edgedd.errors import BudgetError
from edgedd.memory_model import Breakdown
from edgedd.synthetic_set import SyntheticSet

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


class Room:
    """Memory that steps may take: what is free now, with what this process took since its graph was opened."""

    def __init__(self) -> None:
        self._before, self._granted = resident_bytes(), 0

    def check(self, sessions: Sessions, synthetic: SyntheticSet, batch: int, micro_batch: int) -> None:
        """Raises BudgetError for a step that needs more than that; says nothing where it cannot be known.

        Only a step that needs more than all before it is looked at.
        """
        said = predicted(sessions, synthetic, batch, micro_batch)
        if said.growth <= self._granted:
            return
        free, now = free_bytes(), resident_bytes()
        if free is not None and now is not None and self._before is not None:
            room = free + max(now - self._before, 0)
            if said.growth > room:
                parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in said.parts().items())
                raise BudgetError(
                    f"training takes {said.growth / 1e6:.1f} MB more, wanted at most {room / 1e6:.1f} MB, which are "
                    f"free (in all {said.total / 1e6:.1f} MB: {parts}); train with a smaller --micro-batch than "
                    f"{micro_batch}, one thread, or --low-memory"
                )
        self._granted = said.growth


def predicted(sessions: Sessions, synthetic: SyntheticSet, batch: int, micro_batch: int) -> Breakdown:
    """Peak of this process in steps of `batch` images."""
    facts, form = sessions.facts, synthetic.parameterization
    runtime, bundle = sessions._runtime, sessions._bundle
    shapes = [*form.factor_shapes(synthetic.count).values(), synthetic.tensors["labels"].shape]
    return memory_model.predict(
        parameters={name: spec.shape for name, spec in facts.parameters.items()},
        carried=facts.carried,
        graph_bytes=bundle.file(TRAIN_STEP).stat().st_size,
        activation_bytes=facts.activation_bytes,
        image_shape=bundle.image_shape,
        set_bytes=sum(map(memory_model.float_bytes, shapes)),
        batch=batch,
        micro_batch=micro_batch,
        threads=sessions.threads,
        low_memory=runtime.low_memory,
    )


def resident_bytes() -> int | None:
    """Resident memory of this process; None where /proc is missing."""
    found = re.search(r"VmRSS:\s+(\d+) kB", _text(PROC / "self" / "status"))
    return 1024 * int(found[1]) if found else None


def free_bytes() -> int | None:
    """Memory that the machine and every control group of this process have left; None where /proc is missing."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(PROC / "meminfo"))
    if not found:
        return None
    return min([1024 * int(found[1]), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Bytes left in each control group that limits memory, v1 and v2, up to the root."""
    left = []
    for line in _text(PROC / "self" / "cgroup").splitlines():
        kinds, _, path = line.partition(":")[2].partition(":")
        kind = "memory" if "memory" in kinds.split(",") else kinds
        if kind not in FILES:
            continue
        limit, used = FILES[kind]
        place = Path(path.lstrip("/"))
        for folder in (place, *place.parents):
            most, taken = (_text(CGROUPS / kind / folder / name).strip() for name in (limit, used))
            if most.isdigit() and taken.isdigit():
                left.append(max(int(most) - int(taken) + _file_cache(CGROUPS / kind / folder), 0))
    return left


def _file_cache(folder: Path) -> int:
    """Bytes of files that the group has in memory and can give back."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)", _text(folder / "memory.stat"), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    """A file's text; empty when it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
