"""How a student is trained from a synthetic set; stored in the file, so that an ordinary loop is enough."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgedd.augmentation import Augmentation
from edgedd.errors import SettingError

SCHEDULES = ("constant", "cosine", "warm-cosine", "linear", "step")
WARM_UP = 0.1  # of the steps
OPTIMIZERS = ("sgd", "nesterov", "adamw")


@dataclass(frozen=True)
class Recipe:
    """Settings of the training loop that a set was made for.

    Attributes:
        student_lr: learning rate at the first step.
        momentum: of SGD, in [0, 1); AdamW's beta1 (its beta2 is 0.999).
        weight_decay: L2 coefficient added to the gradient; AdamW's is decoupled from it.
        steps: optimizer steps.
        batch_size: images a step, drawn without replacement; a smaller set is used whole.
        augmentation: see `Augmentation`.
        schedule: "constant"; "cosine" or "linear" from student_lr to 0 over `steps`; "warm-cosine": the cosine, but
            rising to it over the first tenth, so that wide students bear a high rate; "step": a tenth of it from the
            middle on, as in the evaluation of DC and DM (Zhao et al. 2021).
        optimizer: "sgd", "nesterov" (SGD with Nesterov's momentum) or "adamw".
    """

    student_lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    steps: int = 600
    batch_size: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)
    schedule: str = "cosine"
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        ranges = {"student_lr": (0, 100), "momentum": (0, 0.9999), "weight_decay": (0, 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SettingError(f"recipe {name}={value!r}, wanted a number in [{low}, {high}]")
        for name, most in (("steps", 10_000_000), ("batch_size", 65_536)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise SettingError(f"recipe {name}={value!r}, wanted a whole number in [1, {most}]")
        for name, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise SettingError(f"recipe {name}={getattr(self, name)!r}, wanted one of {', '.join(known)}")

    def learning_rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        done = step / self.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        factors = {
            "constant": 1.0,
            "cosine": cosine,
            "warm-cosine": cosine * min(1.0, (step + 1) / (WARM_UP * self.steps)),
            "linear": 1 - done,
            "step": 1.0 if step <= self.steps // 2 else 0.1,
        }
        return self.student_lr * factors[self.schedule]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the inverse."""
        return asdict(self) | {"augmentation": self.augmentation.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Raises SettingError for an unknown key or an impossible value."""
        _refuse_unknown("recipe", values, cls)
        augmentation = values.get("augmentation", {})
        if not isinstance(augmentation, Mapping):
            raise SettingError(f"recipe augmentation={augmentation!r}, wanted an object of strengths")
        _refuse_unknown("augmentation", augmentation, Augmentation)
        return cls(**{**values, "augmentation": Augmentation(**augmentation)})


def _refuse_unknown(what: str, values: Mapping[str, Any], kind: type) -> None:
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise SettingError(f"{what} has the unknown key {key!r}, wanted only: {', '.join(known)}")
