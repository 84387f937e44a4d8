"""A synthetic set: factors, soft labels, normalisation, recipe and provenance in one .safetensors file.

The format is specified in docs/format.md. Here is the set in memory; `edgedd.storage.set_file` reads and writes.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgedd.errors import FormatError, SettingError
from edgedd.parameterization import Parameterization
from edgedd.recipe import Recipe
from edgedd.storage import quantize, set_file

Rows = np.ndarray | slice
FEW_CLASSES = 20


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """n synthetic images of K classes in class-major order, exactly as stored.

    Attributes:
        parameterization: how the factors become images.
        tensors: the file's tensors by name: `factors.*`, `scale.*`, `zero.*`, `labels`, `mean`, `std`.
        recipe: how a student is trained from this set.
        classes: K names.
        provenance: method, data fingerprint, seed, edgedd version, command.
        compact: whether the file is entropy-coded; either way it holds the same tensors.
    """

    parameterization: Parameterization
    tensors: Mapping[str, np.ndarray]
    recipe: Recipe
    classes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    compact: bool = False

    @classmethod
    def from_factors(
        cls,
        parameterization: Parameterization,
        *,
        factors: Mapping[str, np.ndarray],
        labels: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
        recipe: Recipe,
        classes: tuple[str, ...],
        provenance: Mapping[str, Any],
        scales: Mapping[str, np.ndarray] | None = None,
        label_levels: int = 255,
    ) -> "SyntheticSet":
        """Round float factors and soft labels (n, K) to what the file stores; without `scales` they are fitted."""
        tensors = store_factors(parameterization, factors, len(labels), scales)
        tensors["labels"] = quantize_labels(labels, label_levels)
        tensors["mean"], tensors["std"] = mean.astype(np.float32), std.astype(np.float32)
        return cls(parameterization, tensors, recipe, classes, dict(provenance))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SyntheticSet":
        """Read and check a file. Raises FormatError naming what is wrong; executes nothing from the file."""
        loaded = cls(**set_file.read(path))
        if loaded.compact:  # coding all again to count bytes would take a second
            vars(loaded)["nbytes"] = os.stat(path).st_size
        return loaded

    def packed(self, compact: bool = True) -> "SyntheticSet":
        """The same set, to be stored compact or plain."""
        return replace(self, compact=compact)

    def to_bytes(self) -> bytes:
        """The file's bytes; `SyntheticSet.load` of them gives the same set bit for bit."""
        about = (self.recipe, self.classes, self.provenance)
        return set_file.serialize(self.parameterization, self.tensors, *about, compact=self.compact)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all."""
        set_file.write(path, self.to_bytes())

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the file on disk, header included."""
        return len(self.to_bytes())

    @property
    def count(self) -> int:
        """n, the number of synthetic images."""
        return len(self.tensors["labels"])

    @property
    def ipc(self) -> int:
        """Images per class."""
        return self.count // len(self.classes)

    @property
    def rank(self) -> int | None:
        """r, or None for a set that is not low-rank."""
        return getattr(self.parameterization, "rank", None)

    @property
    def bits(self) -> int:
        """Bits of a stored coefficient or pixel."""
        return self.parameterization.bits

    @property
    def label_levels(self) -> int:
        """Soft labels are multiples of one over this, a divisor of 255: as few as the labels have."""
        return 255 // math.gcd(255, int(np.gcd.reduce(self.tensors["labels"], axis=None)))

    @cached_property
    def factors(self) -> dict[str, np.ndarray]:
        """Factors as float32, dequantised."""
        return restore_factors(self.parameterization, self.tensors, self.count)

    def images(self, rows: Rows) -> np.ndarray:
        """Images (b, C, H, W), float32, normalised by mean and std. Low-rank sets need the extra [decode]."""
        images: np.ndarray = self.parameterization.decode(self.factors, rows)
        return images

    def soft_labels(self, rows: Rows) -> np.ndarray:
        """Soft labels (b, K), float32, rows sum to 1."""
        labels: np.ndarray = self.tensors["labels"][rows].astype(np.float32) / 255
        return labels


def store_factors(
    parameterization: Parameterization,
    factors: Mapping[str, np.ndarray],
    count: int,
    scales: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Float factors -> the tensors of the file: float16, or packed codes with `scale.*` and `zero.*`."""
    scale_shapes = parameterization.scale_shapes(count)
    tensors = {}
    for name, values in factors.items():
        if not np.isfinite(values).all() or np.abs(values).max() > 60_000:
            raise FormatError(f"factor {name} has values beyond float16, wanted finite ones: lower the learning rate")
        if name not in scale_shapes:
            tensors[f"factors.{name}"] = values.astype(np.float16)
            continue
        bits, zero = parameterization.bits, None
        if parameterization.has_zero:
            scale, zero = quantize.fit_range(values, bits, scale_shapes[name])
            tensors[f"zero.{name}"] = zero
        else:
            scale = scales[name] if scales else quantize.fit_scale(values, bits, scale_shapes[name])
        tensors[f"scale.{name}"] = scale
        tensors[f"factors.{name}"] = quantize.pack(quantize.quantize(values, bits, scale, zero), bits)
    return tensors


def restore_factors(
    parameterization: Parameterization, tensors: Mapping[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """The tensors of the file -> float32 factors."""
    factors = {}
    for name, shape in parameterization.factor_shapes(count).items():
        stored = tensors[f"factors.{name}"]
        if f"scale.{name}" in tensors:
            codes = quantize.unpack(stored, parameterization.bits, shape)
            zero = tensors.get(f"zero.{name}")
            factors[name] = quantize.dequantize(codes, parameterization.bits, tensors[f"scale.{name}"], zero)
        else:
            factors[name] = stored.astype(np.float32)
    return factors


def label_steps(num_classes: int) -> int:
    """Levels of a label that is entropy-coded: a fiftieth is fine enough for few classes, and leaves less to store.

    In fiftieths the labels of a set of 30 kB on CIFAR-10 take 3.0 kB instead of 5.2.
    """
    return 51 if num_classes <= FEW_CLASSES else 255


def quantize_labels(labels: np.ndarray, levels: int = 255) -> np.ndarray:
    """Probabilities (n, K) -> uint8 (n, K) whose rows sum to exactly 255, by largest remainder.

    `levels` divides 255: labels are multiples of 1 / levels; with few of them a compact file takes fewer bytes.
    """
    if levels < 1 or 255 % levels:
        raise SettingError(f"{levels} levels of labels, wanted a divisor of 255: 255, 85, 51, 17, 15, 5, 3 or 1")
    if not np.isfinite(labels).all() or (labels < 0).any() or (labels.sum(1) <= 0).any():
        raise FormatError("labels are not probabilities, wanted finite rows that sum to 1")
    scaled = labels.astype(np.float64) / labels.sum(1, keepdims=True, dtype=np.float64) * levels
    codes = np.floor(scaled)
    missing = np.rint(levels - codes.sum(1)).astype(int)
    rank = np.argsort(np.argsort(codes - scaled, axis=1, kind="stable"), axis=1, kind="stable")
    codes = codes + (rank < missing[:, None])
    return np.asarray(255 // levels * codes, np.uint8)
