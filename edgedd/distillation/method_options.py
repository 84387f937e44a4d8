"""The method that the options of a run ask for."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgedd.augmentation import Augmentation
from edgedd.distillation.methods import Method, method_named
from edgedd.distillation.options import Options
from edgedd.errors import SettingError


def method_of(options: Options) -> Method:
    """The method, with the networks' width and the kind of labels asked for."""
    method = options.method
    if isinstance(method, str):
        settings, known = dict(options.settings or {}), method_named(method)
        if hasattr(known, "width") and options.width is not None:
            settings.setdefault("width", str(options.width))
        if options.contrastive is not None:
            settings.setdefault("contrastive", str(options.contrastive))
        if options.labels in ("hard", "teacher"):
            settings["lr_labels"] = "0"
        if options.labels == "hard" and hasattr(known, "label_temperature"):
            settings["label_temperature"] = "0"
        method = method_named(method, settings)
    elif options.contrastive is not None:
        raise SettingError("contrastive is for named methods: set the field of the method object instead")
    if options.experts is not None:
        if not hasattr(method, "experts"):
            raise SettingError("this method reads no experts: leave --experts out, or choose mtt, datm or lss")
        method = replace(method, experts=os.fspath(options.experts))  # type: ignore[type-var]
    if options.labels == "learned" and not method.lr_labels:
        raise SettingError("this method does not learn labels: choose --labels teacher, or set lr_labels above 0")
    return method


def chooses_augmentation(method: Method) -> bool:
    """Whether the augmentation of its networks is to be chosen on the validation split."""
    return getattr(method, "augmentation", Augmentation()) is None


def decided(method: Method, chosen: Mapping[str, Any]) -> Method:
    """The method with the fields that a run has chosen, which are plain values."""
    fields = dict(chosen)
    if "augmentation" in fields:
        fields["augmentation"] = Augmentation(**fields["augmentation"])
    return replace(method, **fields)  # type: ignore[type-var]
