"""What to distil and for how long: the keyword arguments of `edgedd.distill`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from edgedd.distillation.compute import check_device
from edgedd.distillation.methods import Method
from edgedd.errors import SettingError
from edgedd.recipe import Recipe

LABELS = ("auto", "hard", "teacher", "learned")


@dataclass(frozen=True)
class Options:
    """What to distil and for how long.

    Attributes:
        method: a name in METHODS, by default "auto" (edgedd.distillation.auto), or a method object of your own.
        settings: hyperparameters of a named method to change, as text.
        target: a board (see `edgedd.targets`): what is not said of size and form comes from its plan.
        bytes, ipc: the size: bytes of the file, or images per class.
        parameterization, rank, subspaces, formation, half, bits: how images are stored; by default `low_rank`
            in 4 bits at rank side / 4, for grey images side / 2;
            with "auto" and bytes alone `dct`, for the compact file.
        compact: store the set entropy-coded; sets of kind dct in 8 bits always are.
        labels: "hard", "teacher" (fixed soft labels), "learned", or "auto": what the method does by default.
        iterations, minutes: the length of the run; minutes count everything from the call to the file.
        width: channels of the networks that distil (the ConvNet whose depth fits the images); by default the method's
            own: 64 for frepo, the papers' 128 for dm, idm and iid.
        contrastive: weight of a contrastive term, for dm, dc and what grew from it, and trajectory matching.
        experts: a folder of `edgedd experts`, for the methods that match trajectories.
        recipe: a training recipe to store, instead of searching one on the validation split.
        output, resume: where the file goes, with its checkpoint beside it; resume continues from that.
    """

    method: "str | Method" = "auto"
    settings: Mapping[str, str] | None = None
    target: str | None = None
    bytes: int | None = None
    ipc: int | None = None
    parameterization: str | None = None
    rank: int | None = None
    subspaces: int | None = None
    formation: int | None = None
    half: bool = False
    bits: int | None = None
    compact: bool = False
    labels: str = "auto"
    iterations: int | None = None
    minutes: float | None = None
    width: int | None = None
    seed: int = 0
    device: str = "cpu"
    experts: str | os.PathLike[str] | None = None
    contrastive: float | None = None
    recipe: Recipe | None = None
    output: str | os.PathLike[str] | None = None
    resume: bool = False
    command: str = ""

    @classmethod
    def names(cls) -> list[str]:
        """The options there are."""
        return [field.name for field in fields(cls)]

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise SettingError(f"labels {self.labels!r}, wanted one of {', '.join(LABELS)}")
        check_device(self.device)
        if self.iterations is not None and self.minutes is not None:
            raise SettingError("both iterations and minutes are given: leave one out")
        for name in ("bytes", "ipc", "iterations", "minutes", "width"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise SettingError(f"{name}={value}, wanted more than 0")
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed={self.seed}, wanted a whole number of at least 0")
        if self.resume and self.output is None:
            raise SettingError("resume needs the output whose checkpoint it continues")
