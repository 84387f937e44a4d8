"""From a byte budget to a parameterization and images per class, with the file's size predicted exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedd import set_file
from edgedd.augmentation import Augmentation
from edgedd.errors import BudgetError, SettingError
from edgedd.parameterization import LowRank, Parameterization, Pixels
from edgedd.recipe import Recipe

MAX_IPC = 10_000
COMMAND_SLACK = 32
_ITEM = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
LONGEST_RECIPE = Recipe(
    student_lr=0.0125,
    weight_decay=0.0005,
    steps=99_999,
    batch_size=1024,
    augmentation=Augmentation(flip=0.5, shift=10, scale=0.25, rotate=15.5, cutout=0.25, colour=0.25),
)


@dataclass(frozen=True)
class Storage:
    """How a set will be stored: `ipc` images per class in `parameterization`, `predicted_bytes` on disk at most."""

    parameterization: Parameterization
    ipc: int
    predicted_bytes: int


def file_bytes(
    parameterization: Parameterization,
    count: int,
    classes: tuple[str, ...],
    provenance: Mapping[str, Any],
    recipe: Recipe = LONGEST_RECIPE,
) -> int:
    """Exact bytes on disk of a set of `count` images with this metadata, header included."""
    specs = set_file.tensor_specs(parameterization, count, len(classes))
    tensors = {name: np.zeros(shape, _ITEM[dtype]) for name, (dtype, shape) in specs.items()}
    return len(set_file.serialize(parameterization, tensors, recipe, classes, provenance))


def parameterization_for(
    shape: tuple[int, int, int], kind: str | None, rank: int | None, bits: int | None, subspaces: int | None = None
) -> Parameterization:
    """What was asked for, the rest by default: low_rank in 4 bits, at a quarter of the shorter side (grey: half)."""
    if kind == "pixels":
        if rank is not None or subspaces is not None:
            raise SettingError("pixels take no rank and no subspaces: leave them out or choose low_rank")
        return Pixels(shape, bits or 8)
    if kind not in (None, "low_rank"):
        raise SettingError(f"parameterization {kind!r}, wanted low_rank or pixels")
    default = max(4, min(shape[1:]) // (4 if shape[0] > 1 else 2))
    return LowRank(shape, default if rank is None else rank, subspaces or 1, bits or 4)


def storage(
    parameterization: Parameterization,
    classes: tuple[str, ...],
    provenance: Mapping[str, Any],
    *,
    budget_bytes: int | None = None,
    ipc: int | None = None,
    recipe: Recipe = LONGEST_RECIPE,
) -> Storage:
    """The most images per class within `budget_bytes`, or the bytes of `ipc`.

    Raises BudgetError: not one image a class fits (says the smallest budget that works).
    """

    def size(images: int) -> int:
        return file_bytes(parameterization, images * len(classes), classes, provenance, recipe)

    if ipc is not None:
        if not 1 <= ipc <= MAX_IPC:
            raise SettingError(f"ipc={ipc}, wanted 1 to {MAX_IPC} images per class")
        predicted = size(ipc)
        if budget_bytes is not None and predicted > budget_bytes:
            raise BudgetError(f"ipc {ipc} takes {predicted} bytes, more than the budget of {budget_bytes}: lower one")
        return Storage(parameterization, ipc, predicted)
    if budget_bytes is None:
        raise SettingError("neither bytes nor ipc is given: say how large the set may be")
    if budget_bytes > set_file.MAX_BYTES:
        raise BudgetError(f"{budget_bytes} bytes are more than a file may have, wanted at most {set_file.MAX_BYTES}")
    if budget_bytes < size(1):
        raise _too_small(parameterization, classes, provenance, budget_bytes)
    low, high = 1, 2
    while high < MAX_IPC and size(high) <= budget_bytes:
        low, high = high, min(2 * high, MAX_IPC)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= budget_bytes else (low, middle - 1)
    return Storage(parameterization, low, size(low))


def _too_small(
    parameterization: Parameterization, classes: tuple[str, ...], provenance: Mapping[str, Any], budget_bytes: int
) -> BudgetError:
    """What one image a class takes as asked for, and at least; with room for the command that the file will hold."""
    smallest = LowRank(parameterization.shape, 1, 1, 2)
    asked, least = (
        file_bytes(form, len(classes), classes, provenance) + COMMAND_SLACK for form in (parameterization, smallest)
    )
    return BudgetError(
        f"{budget_bytes} bytes hold less than one image a class as {parameterization.kind} at "
        f"{parameterization.bits} bits, which takes {asked}; the smallest that works is {least}, as low_rank at rank 1 "
        "and 2 bits: raise the bytes or lower rank or bits"
    )
