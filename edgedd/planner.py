"""From a byte budget to a parameterization and images per class, with the file's size predicted exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgedd import set_file
from edgedd.augmentation import Augmentation
from edgedd.errors import BudgetError, SettingError
from edgedd.parameterization import LowRank, Parameterization, Pixels
from edgedd.recipe import Recipe

MAX_IPC = 10_000
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
) -> Storage:
    """The most images per class within `budget_bytes`, or the bytes of `ipc`.

    Raises BudgetError: not one image a class fits (says the smallest budget that works).
    """

    def size(images: int) -> int:
        return file_bytes(parameterization, images * len(classes), classes, provenance)

    if ipc is not None:
        if not 1 <= ipc <= MAX_IPC:
            raise SettingError(f"ipc={ipc}, wanted 1 to {MAX_IPC} images per class")
        predicted = size(ipc)
        if budget_bytes is not None and predicted > budget_bytes:
            raise BudgetError(f"ipc {ipc} takes {predicted} bytes, more than the budget of {budget_bytes}: lower one")
        return Storage(parameterization, ipc, predicted)
    if budget_bytes is None:
        raise SettingError("neither bytes nor ipc is given: say how large the set may be")
    least = _least_bytes(parameterization, classes, provenance)
    if budget_bytes < size(1):
        form = f"{parameterization.kind} at {parameterization.bits} bits"
        raise BudgetError(
            f"{budget_bytes} bytes hold less than one image a class as {form}, which takes {size(1)}; "
            f"the smallest that works at any rank and width is {least}: raise the bytes or lower rank or bits"
        )
    low, high = 1, MAX_IPC
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= budget_bytes else (low, middle - 1)
    return Storage(parameterization, low, size(low))


def _least_bytes(parameterization: Parameterization, classes: tuple[str, ...], provenance: Mapping[str, Any]) -> int:
    smallest = LowRank(parameterization.shape, 1, 1, 2)
    candidates = [smallest, replace(parameterization, bits=2)]
    return min(file_bytes(p, len(classes), classes, provenance) for p in candidates)
