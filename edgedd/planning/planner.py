"""From a byte budget to a parameterization and images per class.

The size of a plain file is predicted exactly. That of a compact one depends on what is in it: the number of images
follows from the budget, and distillation chooses the quantisation step with which the file keeps within it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.errors import BudgetError, SettingError
from edgedd.parameterization import DCT, Formation, LowRank, Parameterization, Pixels, SharedBasis
from edgedd.recipe import Recipe
from edgedd.storage import set_file
from edgedd.storage.set_tensors import tensor_specs

MAX_IPC = 10_000
COMMAND_SLACK = 32
COMPACT_FRONT = 150  # bytes of a compact file's metadata, mean, std and one step
COMPACT_LABEL = 5.5  # bytes of a soft label of ten classes in a compact file
COMPACT_IMAGE = (29.0, 0.34)  # bytes of a 32x32 image where a class has an uint8 image's bytes, and their growth
_TAKES: dict[str, tuple[str, ...]] = {
    "low_rank": ("rank", "subspaces"),
    "pixels": (),
    "formation": ("formation",),
    "shared_basis": ("rank", "subspaces", "half"),
    "dct": ("rank",),
}
_ITEM = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
LONGEST_RECIPE = Recipe(
    student_lr=0.0125,
    weight_decay=0.0005,
    steps=99_999,
    batch_size=1024,
    augmentation=Augmentation(flip=0.5, shift=10, scale=0.25, rotate=15.5, cutout=0.25, colour=0.25),
    schedule="warm-cosine",
)


@dataclass(frozen=True)
class Storage:
    """How a set will be stored: `ipc` images per class in `parameterization`, `predicted_bytes` on disk at most.

    For plain files these are the bytes; a compact file's are the budget, or without one those of the plain file.
    """

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
    specs = tensor_specs(parameterization, count, len(classes))
    tensors = {name: np.zeros(shape, _ITEM[dtype]) for name, (dtype, shape) in specs.items()}
    return len(set_file.serialize(parameterization, tensors, recipe, classes, provenance))


def parameterization_for(
    shape: tuple[int, int, int],
    kind: str | None,
    rank: int | None,
    bits: int | None,
    subspaces: int | None = None,
    *,
    formation: int | None = None,
    half: bool | None = None,
) -> Parameterization:
    """What was asked for, the rest by default: low_rank in 4 bits, at a quarter of the shorter side (grey: half).

    Formations are of 2 x 2, in 8 bits like pixels; a shared basis has 16 pictures, as "Remember the Past", and 4 bits;
    a DCT keeps three quarters of the frequencies of a side in 8 bits, for the compact file, where most are 0.
    """
    kind = kind or "low_rank"
    if kind not in _TAKES:
        raise SettingError(f"parameterization {kind!r}, wanted {', '.join(_TAKES)}")
    given = {"rank": rank, "subspaces": subspaces, "formation": formation, "half": half}
    odd = [name for name, value in given.items() if value is not None and name not in _TAKES[kind]]
    if odd:
        others = ", ".join(other for other, takes in _TAKES.items() if set(odd) <= set(takes))
        raise SettingError(f"{kind} takes no {' and no '.join(odd)}: leave it out or choose {others or 'another'}")
    if kind == "pixels":
        return Pixels(shape, bits or 8)
    if kind == "formation":
        return Formation(shape, 2 if formation is None else formation, bits or 8)
    if kind == "shared_basis":
        size = math.prod(shape) // (4 if half else 1)
        return SharedBasis(shape, min(16, size // 4) if rank is None else rank, subspaces or 1, bits or 4, bool(half))
    if kind == "dct":
        return DCT(shape, min(shape[1:]) * 3 // 4 if rank is None else rank, bits or 8)
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

    Raises SettingError: an ipc that this parameterization cannot store.
    Raises BudgetError: the fewest images that it can store do not fit (says the smallest budget that works).
    """

    def size(images: int) -> int:
        return file_bytes(parameterization, images * len(classes), classes, provenance, recipe)

    if ipc is not None:
        _check_ipc(parameterization, ipc, len(classes))
        if budget_bytes is not None and stores_compact(parameterization):
            return Storage(parameterization, ipc, budget_bytes)
        predicted = size(ipc)
        if budget_bytes is not None and predicted > budget_bytes:
            raise BudgetError(f"ipc {ipc} takes {predicted} bytes, more than the budget of {budget_bytes}: lower one")
        return Storage(parameterization, ipc, predicted)
    if budget_bytes is None:
        raise SettingError("neither bytes nor ipc is given: say how large the set may be")
    if budget_bytes > set_file.MAX_BYTES:
        raise BudgetError(f"{budget_bytes} bytes are more than a file may have, wanted at most {set_file.MAX_BYTES}")
    if stores_compact(parameterization):
        return Storage(parameterization, compact_images(budget_bytes, parameterization, len(classes)), budget_bytes)
    step, least = parameterization.per_stored, _least_ipc(parameterization, len(classes))
    if budget_bytes < size(least):
        raise _too_small(parameterization, classes, provenance, budget_bytes)
    low, most = least // step, MAX_IPC // step
    high = min(2 * low, most)
    while high < most and size(high * step) <= budget_bytes:
        low, high = high, min(2 * high, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle * step) <= budget_bytes else (low, middle - 1)
    return Storage(parameterization, low * step, size(low * step))


def stores_compact(parameterization: Parameterization) -> bool:
    """Whether sets of this form are stored compact: frequencies in coarse steps, most of whose codes are 0."""
    return isinstance(parameterization, DCT) and parameterization.bits == 8


def compact_images(budget_bytes: int, parameterization: Parameterization, num_classes: int) -> int:
    """Images a class of a compact file.

    Four times the bytes go to two and a half times the images, each finer. Measured with `snapshots` on CIFAR-10 at
    30,720 bytes (benchmarks/results/auto_choices.json), where 90 a class beat 59 and 130; on Fashion-MNIST at 31,360
    bytes 73 beat 140. Other sizes follow by the square root of their pixels, not measured.

    Raises BudgetError for fewer bytes than one image a class needs.
    """
    at_one, power = COMPACT_IMAGE
    least = COMPACT_FRONT + num_classes * max(4, math.prod(parameterization.shape) // 128)
    if budget_bytes < least:
        raise BudgetError(
            f"{budget_bytes} bytes are too few for {num_classes} classes in a compact file, wanted at least {least}: "
            "raise the bytes"
        )
    values, pixels = math.prod(parameterization.shape), math.prod(parameterization.shape[1:])
    per_class = (budget_bytes - COMPACT_FRONT) / num_classes
    image = at_one * math.sqrt(pixels / 1024) * (per_class / values) ** power
    return int(np.clip(per_class // (image + COMPACT_LABEL * num_classes / 10), 1, MAX_IPC))


def _least_ipc(parameterization: Parameterization, num_classes: int) -> int:
    """The fewest images per class that can be stored, whole stored images."""
    step = parameterization.per_stored
    return step * -(-parameterization.least_count // (step * num_classes))


def _check_ipc(parameterization: Parameterization, ipc: int, num_classes: int) -> None:
    step = parameterization.per_stored
    if not 1 <= ipc <= MAX_IPC:
        raise SettingError(f"ipc={ipc}, wanted 1 to {MAX_IPC} images per class")
    if ipc % step:
        raise SettingError(
            f"ipc={ipc}, wanted a multiple of {step}: {parameterization.kind} stores so many as one image"
        )
    parameterization.check_count(ipc * num_classes)


def _too_small(
    parameterization: Parameterization, classes: tuple[str, ...], provenance: Mapping[str, Any], budget_bytes: int
) -> BudgetError:
    """What the fewest images take as asked for, and at least; with room for the command that the file will hold."""
    smallest = LowRank(parameterization.shape, 1, 1, 2)
    asked, least = (
        file_bytes(form, _least_ipc(form, len(classes)) * len(classes), classes, provenance) + COMMAND_SLACK
        for form in (parameterization, smallest)
    )
    fewest = _least_ipc(parameterization, len(classes))
    return BudgetError(
        f"{budget_bytes} bytes hold less than {'one image' if fewest == 1 else f'{fewest} images'} a class as "
        f"{parameterization.kind} at {parameterization.bits} bits, which takes {asked}; the smallest that works is "
        f"{least}, as low_rank at rank 1 and 2 bits: raise the bytes or lower rank or bits"
    )
