"""Every method by name, and what the outer loop asks of one.

A method is a frozen dataclass of hyperparameters with two functions: `init` makes what it keeps between steps, `loss`
gives a scalar whose gradient moves the factors, the mappers and the label logits. Adding one is adding a file and a
line here; `edgedd.distill(method=...)` also takes an object, so that nothing need be registered.

Where a method has them, these are used too: `optimizer` ("adam" or "sgd") and `steps_per_class` (see the loop);
`usual_lr(ipc)`, the rate where `lr` is None; `image_passes(ipc, num_classes)`, the images that an iteration passes;
`parameterization`, how images are stored where nothing is asked; `choose(real, ipc, teacher, generator)`, the rows of
the real images that the set starts from; `width`, of its networks; `augmentation`, chosen for it where it is None. A
state with `total` is told the iterations of the run; one with `recipes()` says at the end which recipes it suggests.
"""

from dataclasses import fields, replace
from types import NoneType
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np
import torch

from edgedd.distillation.compute import Compute
from edgedd.distillation.dm import DM
from edgedd.distillation.frepo import FRePo
from edgedd.distillation.gradient_matching import DC, DCC, DSA, DSAC
from edgedd.distillation.idm import IDM
from edgedd.distillation.iid import IID
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.selection import Selection
from edgedd.distillation.snapshots import Snapshots
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.trajectory_matching import CONTRASTIVE, DATM, LSS, MTT
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
    """What the outer loop asks of a method; a learning rate of 0 keeps a part fixed."""

    @property
    def lr(self) -> float | None:
        """Of cores and pixels; None: `usual_lr`."""
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


METHODS: dict[str, Method] = {
    "auto": Snapshots(),
    "snapshots": Snapshots(),
    "frepo": FRePo(),
    "dm": DM(),
    "idm": IDM(),
    "iid": IID(),
    "dc": DC,
    "dsa": DSA,
    "dcc": DCC,
    "dsac": DSAC,
    "mtt": MTT,
    "datm": DATM,
    "lss": LSS,
    "contrastive": CONTRASTIVE,
    "random": Selection("random"),
    "herding": Selection("herding"),
    "kmeans": Selection("kmeans"),
}


def method_named(name: str, settings: dict[str, str] | None = None) -> Method:
    """A method with its defaults, `settings` put in their place as text. Raises SettingError, listing what is known."""
    if name not in METHODS:
        raise SettingError(f"unknown method {name!r}, wanted one of {', '.join(METHODS)}")
    method: Any = METHODS[name]
    hints = get_type_hints(type(method))
    kinds = {f.name: kind for f in fields(method) if (kind := _kind(hints[f.name])) is not None}
    changed = {}
    for key, text in (settings or {}).items():
        if key not in kinds:
            raise SettingError(f"method {name} has no setting {key!r}, wanted one of {', '.join(kinds)}")
        changed[key] = _value(key, text, kinds[key])
    chosen: Method = replace(method, **changed)
    return chosen


def image_lr(method: Method, ipc: int) -> float:
    """The learning rate of cores and pixels, at `ipc` stored images a class."""
    usual = getattr(method, "usual_lr", None)
    if method.lr is not None or usual is None:
        return method.lr or 0.0
    return float(usual(ipc))


def _kind(hint: Any) -> Any:
    """How text becomes a field: int, float, or the texts of a Literal; None for fields that only Python sets."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    rest = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return rest[0] if rest in ([int], [float]) else None


def _value(key: str, text: str, kind: Any) -> Any:
    """A whole number of at least 1 where the field is one, a finite number of at least 0, or one of some words."""
    if isinstance(kind, tuple):
        if text not in kind:
            raise SettingError(f"setting {key}={text!r}, wanted one of {', '.join(kind)}")
        return text
    least, wanted = (1, "a whole number of at least 1") if kind is int else (0, "a finite number of at least 0")
    try:
        value = kind(text)
    except ValueError as error:
        raise SettingError(f"setting {key}={text!r}, wanted {wanted}") from error
    if not np.isfinite(value) or value < least:
        raise SettingError(f"setting {key}={text!r}, wanted {wanted}")
    return value
