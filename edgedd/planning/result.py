"""What `edgedd.plan` answers."""

from dataclasses import asdict, dataclass, field
from typing import Any

from edgedd.parameterization import Parameterization
from edgedd.planning.memory_model import Breakdown

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Alternative:
    """A form that was looked at: what it would hold and take, and why it lost (empty for the one that was picked)."""

    form: Parameterization
    ipc: int | None
    file_bytes: int | None
    peak_bytes: int | None
    seconds: float | None
    accuracy: float | None
    why_not: str


@dataclass(frozen=True)
class Plan:
    """What to distil and how the board trains from it.

    Attributes:
        target: name of the board.
        student, mode: what is trained.
        parameterization, ipc: how images are stored, and how many of each class.
        file_bytes, storage_bytes: predicted size of the set, and the budget for it.
        threads, micro_batch: how the device runs.
        memory, process_ram_bytes: predicted peak by part, and the board's budget.
        steps, batch: of the recipe.
        flops, seconds: of the whole training.
        accuracy: of a small student in the sweep at a like budget; None where nothing was measured.
        basis: what the choice rests on.
        alternatives: all forms that were looked at, the picked one among them.
    """

    target: str
    student: str
    mode: str
    image_shape: Shape
    num_classes: int
    parameterization: Parameterization
    ipc: int
    file_bytes: int
    storage_bytes: int
    threads: int
    micro_batch: int
    memory: Breakdown
    process_ram_bytes: int
    steps: int
    batch: int
    flops: int
    seconds: float
    accuracy: float | None
    basis: str
    alternatives: tuple[Alternative, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self) | {"parameterization": self.parameterization.as_dict()}
        plain["memory"] = self.memory.parts() | {"total": self.memory.total}
        plain["alternatives"] = [asdict(a) | {"form": a.form.as_dict()} for a in self.alternatives]
        return plain
