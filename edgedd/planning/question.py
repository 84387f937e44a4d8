"""What `edgedd.plan` is asked: a board, images, a network, and what the plan must keep to."""

from dataclasses import dataclass
from typing import Any

from edgedd.errors import BudgetError, SettingError
from edgedd.planning.target import Target
from edgedd.recipe import Recipe

FORM_OPTIONS = ("parameterization", "rank", "subspaces", "formation", "half", "bits")
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Wanted:
    """What a plan must keep to; None leaves it to the plan.

    Attributes:
        bytes: of the file, instead of the board's storage.
        ipc: images per class.
        parameterization, rank, subspaces, formation, half, bits: the form, or a part of it.
        threads, micro_batch: how the device runs.
        recipe: of training; unless given, the default one with usual augmentation.
    """

    bytes: int | None = None
    ipc: int | None = None
    parameterization: str | None = None
    rank: int | None = None
    subspaces: int | None = None
    formation: int | None = None
    half: bool | None = None
    bits: int | None = None
    threads: int | None = None
    micro_batch: int | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for name in ("bytes", "ipc", "threads", "micro_batch"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise SettingError(f"{name}={value!r}, wanted a whole number of at least 1")

    @property
    def form(self) -> dict[str, Any]:
        """The options of the form that are given."""
        return {name: getattr(self, name) for name in FORM_OPTIONS if getattr(self, name) is not None}


@dataclass(frozen=True)
class Question:
    """What is to be planned: a board, images (C, H, W) and names of classes, a student and what of it is trained."""

    target: Target
    shape: Shape
    classes: tuple[str, ...]
    student: str
    mode: str
    wanted: Wanted

    @property
    def budget_bytes(self) -> int:
        """Of the file. Raises BudgetError when more is asked for than the board stores."""
        asked, most = self.wanted.bytes, self.target.storage_bytes
        if asked is not None and asked > most:
            raise BudgetError(f"{asked} bytes, wanted at most the {most} that {self.target.name} has for a set")
        return most if asked is None else asked

    @property
    def recipe(self) -> Recipe:
        """Of training."""
        return self.wanted.recipe or Recipe()
