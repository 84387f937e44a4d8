"""A network's parameters: their shapes, and how they start. A device needs this, and no architectures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its shape and start; `uniform` draws from [-bound, bound], others are constant."""

    shape: tuple[int, ...]
    start: str  # "uniform", "ones" or "zeros"
    bound: float = 0.0


def initial_parameters(specs: Mapping[str, ParameterSpec], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Fresh float32 parameters, drawn in the order of `specs`: equal generators give equal networks anywhere."""
    starts = {"ones": np.ones, "zeros": np.zeros}
    return {
        name: generator.uniform(-s.bound, s.bound, s.shape).astype(np.float32)
        if s.start == "uniform"
        else starts[s.start](s.shape, np.float32)
        for name, s in specs.items()
    }
