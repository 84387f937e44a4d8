"""Every method by name, and what the outer loop asks of one.

A method is a frozen dataclass of hyperparameters with two functions: `init` makes what it keeps between steps, `loss`
gives a scalar whose gradient moves the factors, the mappers and the label logits. Adding one is adding a file and a
line here; `edgedd.distill(method=...)` also takes an object, so that nothing need be registered.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.distillation.dm import DM
from edgedd.distillation.frepo import FRePo
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import SettingError


class State(Protocol):
    """What a method keeps between steps; it goes into checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and lists and dicts of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        ...


class Method(Protocol):
    """What the outer loop asks of a method; learning rates are Adam's, 0 keeps a part fixed."""

    @property
    def lr(self) -> float:
        """Of cores and pixels."""
        ...

    @property
    def lr_mappers(self) -> float:
        """Of dimension mappers."""
        ...

    @property
    def lr_labels(self) -> float:
        """Of label logits."""
        ...

    def init(self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator) -> Any:
        """A new state."""
        ...

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: Any, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Any]:
        """The objective at the present factors, and the next state."""
        ...


@dataclass(frozen=True)
class Random:
    """The baseline: random real images in the same parameterization, with the teacher's labels. Nothing is learned."""

    lr: float = 0.0
    lr_mappers: float = 0.0
    lr_labels: float = 0.0

    def init(self, synthetic: TrainableSet, real: RealImages, compute: Compute, generator: np.random.Generator) -> Any:
        """Nothing."""
        return None

    def loss(
        self, synthetic: TrainableSet, real: RealImages, state: Any, generator: np.random.Generator
    ) -> tuple[torch.Tensor, Any]:
        """Never asked for: the loop runs no step when nothing can move."""
        raise SettingError("method random has no objective, wanted 0 iterations")


METHODS: dict[str, type[FRePo] | type[DM] | type[Random]] = {"frepo": FRePo, "dm": DM, "random": Random}


def method_named(name: str, settings: dict[str, str] | None = None) -> Method:
    """A method with its defaults, `settings` put in their place as text. Raises SettingError, listing what is known."""
    if name not in METHODS:
        raise SettingError(f"unknown method {name!r}, wanted one of {', '.join(METHODS)}")
    method = METHODS[name]()
    known = {f.name: getattr(method, f.name) for f in fields(method)}
    changed = {}
    for key, text in (settings or {}).items():
        if key not in known or key == "augmentation":
            options = ", ".join(k for k, v in known.items() if k != "augmentation")
            raise SettingError(f"method {name} has no setting {key!r}, wanted one of {options}")
        changed[key] = _number(key, text, type(known[key]))
    return replace(method, **changed)


def _number(key: str, text: str, kind: type) -> Any:
    """A whole number of at least 1 where the default is one, else a finite number of at least 0."""
    least, wanted = (1, "a whole number of at least 1") if kind is int else (0, "a finite number of at least 0")
    try:
        value = kind(text)
    except ValueError as error:
        raise SettingError(f"setting {key}={text!r}, wanted {wanted}") from error
    if not np.isfinite(value) or value < least:
        raise SettingError(f"setting {key}={text!r}, wanted {wanted}")
    return value
