"""Whether a training step fits into the memory that is free, asked before it is taken; Linux only."""

import re
from pathlib import Path

from edgedd.bundles.files import TRAIN_STEP
from edgedd.device.sessions import Sessions
from edgedd.errors import BudgetError
from edgedd.planning import memory_model
from edgedd.planning.machine import CGROUPS, PROC, available_bytes, memory_groups, text_of
from edgedd.planning.memory_model import Breakdown
from edgedd.synthetic_set import SyntheticSet


class Room:
    """Memory that steps may take: what is free now, with what this process took since its graph was opened."""

    def __init__(self) -> None:
        self._before, self._granted = resident_bytes(), 0
        self._looked_at = set[tuple[int, int]]()

    def check(self, sessions: Sessions, synthetic: SyntheticSet, batch: int, micro_batch: int) -> None:
        """Raises BudgetError for a step that needs more than that; says nothing where it cannot be known.

        Only a step that needs more than all before it is looked at, and each size of batch once.
        """
        if (batch, micro_batch) in self._looked_at:
            return
        said = predicted(sessions, synthetic, batch, micro_batch)
        if said.growth > self._granted:
            self._refuse_too_much(said, micro_batch)
            self._granted = said.growth
        self._looked_at.add((batch, micro_batch))

    def _refuse_too_much(self, said: Breakdown, micro_batch: int) -> None:
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


def predicted(sessions: Sessions, synthetic: SyntheticSet, batch: int, micro_batch: int) -> Breakdown:
    """Peak of this process in steps of `batch` images."""
    facts, form = sessions.facts, synthetic.parameterization
    shapes = [*form.factor_shapes(synthetic.count).values(), synthetic.tensors["labels"].shape]
    return memory_model.predict(
        parameters={name: spec.shape for name, spec in facts.parameters.items()},
        carried=facts.carried,
        graph_bytes=sessions.bundle.file(TRAIN_STEP).stat().st_size,
        activation_bytes=facts.activation_bytes,
        image_shape=sessions.bundle.image_shape,
        set_bytes=sum(map(memory_model.float_bytes, shapes)),
        batch=batch,
        micro_batch=micro_batch,
        threads=sessions.threads,
        low_memory=sessions.runtime.low_memory,
    )


def resident_bytes() -> int | None:
    """Resident memory of this process; None where /proc is missing."""
    found = re.search(r"VmRSS:\s+(\d+) kB", text_of(PROC / "self" / "status"))
    return 1024 * int(found[1]) if found else None


def free_bytes() -> int | None:
    """Memory that the machine and every control group of this process have left; None where /proc is missing."""
    available = available_bytes(PROC)
    return None if available is None else min([available, *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Bytes left in each control group that limits memory."""
    left = []
    for folder, limit, used in memory_groups(PROC, CGROUPS):
        most, taken = (text_of(folder / name).strip() for name in (limit, used))
        if most.isdigit() and taken.isdigit():
            left.append(max(int(most) - int(taken) + _file_cache(folder), 0))
    return left


def _file_cache(folder: Path) -> int:
    """Bytes of files that the group has in memory and can give back."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)", text_of(folder / "memory.stat"), re.MULTILINE)
    return int(found[1]) if found else 0
