"""Spare outputs: a student may have more than its set has classes, for classes that it learns on the device.

An output that stands for no class yet has a bias so low that its share of the softmax is exactly 0: no loss and no
gradient sees it, and the student trains as one without it. Only networks known by name have spare outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgedd.errors import FormatError, SettingError
from edgedd.parameters import ParameterSpec, initial_parameters
from edgedd.storage.set_metadata import class_names

WEIGHT, BIAS = "head.weight", "head.bias"
UNUSED = np.float32(-1e4)
Weights = dict[str, np.ndarray]


def widened(labels: np.ndarray, outputs: int) -> np.ndarray:
    """Soft labels (b, K) -> (b, outputs) float32, 0 for the outputs beyond K."""
    return np.pad(labels.astype(np.float32), ((0, 0), (0, outputs - labels.shape[1])))


def initial_weights(
    specs: Mapping[str, ParameterSpec], used: int, outputs: int, generator: np.random.Generator
) -> Weights:
    """Fresh parameters: those of a network of `used` outputs, drawn alike, and `outputs - used` that stand for none."""
    if used == outputs:
        return initial_parameters(specs, generator)
    narrow = {name: replace(specs[name], shape=(used, *specs[name].shape[1:])) for name in (WEIGHT, BIAS)}
    drawn = initial_parameters({**specs, **narrow}, generator)
    wide = {name: np.zeros(specs[name].shape, np.float32) for name in narrow}
    for name, array in wide.items():
        array[:used] = drawn[name]
    return without_unused({**drawn, **wide}, used)


def without_unused(weights: Mapping[str, np.ndarray], used: int) -> Weights:
    """The same, with every output from `used` on standing for no class."""
    changed = dict(weights)
    if WEIGHT in changed and len(changed[WEIGHT]) > used:
        changed |= {name: changed[name].copy() for name in (WEIGHT, BIAS)}
        changed[WEIGHT][used:], changed[BIAS][used:] = 0, UNUSED
    return changed


def with_new(weights: Mapping[str, np.ndarray], used: int, count: int) -> Weights:
    """The same, with `count` outputs after the first `used` in use: weights 0, and the bias that the others have."""
    changed = {**weights, **{name: weights[name].copy() for name in (WEIGHT, BIAS)}}
    changed[WEIGHT][used : used + count] = 0
    changed[BIAS][used : used + count] = changed[BIAS][:used].mean()
    return changed


def extended(classes: tuple[str, ...], names: Sequence[str], outputs: int, mode: str) -> tuple[str, ...]:
    """The classes with new ones behind them, in a network of so many outputs that trains `mode`. Raises SettingError.

    For names that are taken or impossible, more than there are outputs, or a mode in which nothing can be learned.
    """
    if not names:
        return classes
    if len(classes) + len(names) > outputs:
        raise SettingError(
            f"{len(names)} new class(es), such as {names[0]!r}, and {outputs - len(classes)} spare output(s): export "
            "the bundle with --spare-classes, or leave their images out"
        )
    if mode == "bias":
        raise SettingError("mode bias leaves new outputs without weights, wanted a bundle of full, head or last-<k>")
    try:
        return class_names([*classes, *names])
    except FormatError as error:
        raise SettingError(f"{error}: name the new classes otherwise") from error
