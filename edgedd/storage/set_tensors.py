"""The tensors of a synthetic-set file: which there are, in what dtype and shape, and which values they may have."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedd.errors import FormatError
from edgedd.parameterization import Parameterization
from edgedd.storage import quantize

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype(np.uint8)}
Spec = tuple[str, tuple[int, ...]]


def tensor_specs(parameterization: Parameterization, count: int, num_classes: int) -> dict[str, Spec]:
    """Dtype and shape of every tensor of a set of `count` images."""
    scales = parameterization.scale_shapes(count)
    specs: dict[str, Spec] = {
        "labels": ("U8", (count, num_classes)),
        "mean": ("F32", (parameterization.shape[0],)),
        "std": ("F32", (parameterization.shape[0],)),
    }
    for name, shape in parameterization.factor_shapes(count).items():
        if name not in scales:
            specs[f"factors.{name}"] = ("F16", shape)
            continue
        bits = parameterization.bits
        specs[f"factors.{name}"] = ("U8", shape if bits == 8 else (quantize.packed_size(math.prod(shape), bits),))
        specs[f"scale.{name}"] = ("F16", scales[name])
        if parameterization.has_zero:
            specs[f"zero.{name}"] = ("F16", scales[name])
    return specs


def check_count(parameterization: Parameterization, count: int, num_classes: int) -> None:
    """Raises FormatError or SettingError when `count` images of so many classes cannot be stored."""
    if count < 1 or count % num_classes:
        raise FormatError(f"{count} images, wanted as many for each of {num_classes} classes")
    parameterization.check_count(count)
    if count // num_classes % parameterization.per_stored:
        raise FormatError(
            f"{count} images of {num_classes} classes, wanted a multiple of {parameterization.per_stored} a class"
        )


def check_values(tensors: Mapping[str, np.ndarray]) -> None:
    """Raises FormatError for a number that is not finite, a scale or std not above 0, a label row not summing to 1."""
    for name, values in tensors.items():
        if values.dtype != np.uint8 and not np.isfinite(values).all():
            raise FormatError(f"tensor {name} has a value that is not finite; the file is damaged, make it again")
        if (name.startswith("scale.") or name == "std") and (values <= 0).any():
            raise FormatError(f"tensor {name} has a value that is not positive; the file is damaged, make it again")
    sums = tensors["labels"].sum(axis=1, dtype=np.int64)
    wrong = np.flatnonzero(sums != 255)
    if wrong.size:
        raise FormatError(f"label row {wrong[0]} sums to {sums[wrong[0]]}/255, wanted 255/255: rows must sum to 1")
