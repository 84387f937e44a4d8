"""edgedd: distil labelled images into kilobytes on a server, train from them on a device with stock onnxruntime.

Every public name loads its room when it is first used, so that `import edgedd` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "Augmentation": "edgedd.augmentation",
    "EdgeddError": "edgedd.errors",
    "LabelledImages": "edgedd.labelled_images",
    "Recipe": "edgedd.recipe",
    "Rehearsal": "edgedd.device",
    "RehearsalResult": "edgedd.device",
    "Student": "edgedd.device",
    "SyntheticSet": "edgedd.synthetic_set",
    "TrainResult": "edgedd.device",
    "demo": "edgedd.demonstration",
    "distill": "edgedd.distillation.run",
    "evaluate": "edgedd.evaluation",
    "export": "edgedd.exporting",
    "inspect": "edgedd.inspection",
    "install": "edgedd.bundles.installation",
    "join": "edgedd.joining",
    "load_data": "edgedd.labelled_images",
    "load_target": "edgedd.planning.target",
    "plan": "edgedd.planning.plan",
    "preview": "edgedd.report.preview",
    "rollback": "edgedd.bundles.installation",
    "targets": "edgedd.planning.target",
    "try_students": "edgedd.device.trying",
    "tune": "edgedd.distillation.tuning",
    "verify": "edgedd.bundles.verification",
    "write_report": "edgedd.report.page",
}
__all__ = [
    "Augmentation",
    "EdgeddError",
    "LabelledImages",
    "Recipe",
    "Rehearsal",
    "RehearsalResult",
    "Student",
    "SyntheticSet",
    "TrainResult",
    "demo",
    "distill",
    "evaluate",
    "export",
    "inspect",
    "install",
    "join",
    "load_data",
    "load_target",
    "plan",
    "preview",
    "rollback",
    "targets",
    "try_students",
    "tune",
    "verify",
    "write_report",
]

if TYPE_CHECKING:
    from edgedd.augmentation import Augmentation
    from edgedd.bundles.installation import install, rollback
    from edgedd.bundles.verification import verify
    from edgedd.demonstration import demo
    from edgedd.device import Rehearsal, RehearsalResult, Student, TrainResult
    from edgedd.device.trying import try_students
    from edgedd.distillation.run import distill
    from edgedd.distillation.tuning import tune
    from edgedd.errors import EdgeddError
    from edgedd.evaluation import evaluate
    from edgedd.exporting.export import export
    from edgedd.inspection import inspect
    from edgedd.joining import join
    from edgedd.labelled_images import LabelledImages, load_data
    from edgedd.planning.plan import plan
    from edgedd.planning.target import load_target, targets
    from edgedd.recipe import Recipe
    from edgedd.report.page import write_report
    from edgedd.report.preview import preview
    from edgedd.synthetic_set import SyntheticSet


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'edgedd' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
