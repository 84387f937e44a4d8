"""Several synthetic sets of different classes as one: what a device holds when classes came to it one after another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgedd.errors import DataError
from edgedd.parameterization import LowRank, SharedBasis
from edgedd.synthetic_set import SyntheticSet


def join(sets: Sequence[SyntheticSet]) -> SyntheticSet:
    """All images of `sets`, in order; label rows are as they were, and 0 for the classes of the other sets.

    Factors are joined as they decode, in 16 bits, and each set keeps its own subspaces: nothing is rounded but to
    float16. Recipe and provenance are those of the first set. Raises DataError for sets that are not stored in the
    same form with the same number of images, normalised alike, or that have a class in common.
    """
    if not sets:
        raise DataError("no sets to join, wanted at least one")
    first = sets[0]
    for number, other in enumerate(sets[1:], start=2):
        _refuse_other(first, other, number)
    classes = tuple(name for each in sets for name in each.classes)
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"the class {twice!r} is in two of the sets, wanted each class in one: rename or leave one out")
    form = replace(first.parameterization, bits=16)
    if isinstance(form, LowRank | SharedBasis):
        form = replace(form, subspaces=len(sets) * form.subspaces)
    labels = np.zeros((sum(each.count for each in sets), len(classes)), np.float32)
    row = column = 0
    for each in sets:
        labels[row : row + each.count, column : column + len(each.classes)] = each.soft_labels(slice(None))
        row, column = row + each.count, column + len(each.classes)
    return SyntheticSet.from_factors(
        form,
        factors={name: np.concatenate([each.factors[name] for each in sets]) for name in first.factors},
        labels=labels,
        mean=first.tensors["mean"],
        std=first.tensors["std"],
        recipe=first.recipe,
        classes=classes,
        provenance=first.provenance,
    )


def _refuse_other(first: SyntheticSet, other: SyntheticSet, number: int) -> None:
    if (other.parameterization, other.count) != (first.parameterization, first.count):
        raise DataError(
            f"set {number} is {other.parameterization} of {other.count} images, the first {first.parameterization} of "
            f"{first.count}: distil both with the same form and number of images"
        )
    if not all(np.array_equal(other.tensors[name], first.tensors[name]) for name in ("mean", "std")):
        raise DataError(f"set {number} is normalised by another mean or deviation than the first, wanted the same")
