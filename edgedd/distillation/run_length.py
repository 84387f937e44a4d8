"""How long a run is, in iterations and in rough operations."""

from collections.abc import Sequence

import numpy as np

from edgedd.distillation import recipe_search
from edgedd.distillation.methods import Method, image_lr
from edgedd.distillation.options import Options
from edgedd.planning.planner import Storage
from edgedd.students import default_student, student

DEFAULT_IMAGE_PASSES = {"cpu": 1_250_000, "cuda": 25_000_000}
NARROW = 32


def default_iterations(method: Method, storage: Storage, num_classes: int, device: str) -> int:
    """As many as make a run of ten minutes on two cores at CIFAR-10's size, of fewer on a GPU; less for larger sets."""
    passes = DEFAULT_IMAGE_PASSES[device]
    return int(np.clip(passes // _image_passes(method, storage, num_classes, 2), 300, 5000))


def work(method: Method, width: int, options: Options, storage: Storage, classes: Sequence[str]) -> float:
    """Rough operations of the whole run: decides whether compiling pays."""
    shape, num_classes = storage.parameterization.shape, len(classes)
    network, narrow = (student(default_student(shape, w), shape, num_classes) for w in (width, min(width, NARROW)))
    iterations = options.iterations or default_iterations(method, storage, num_classes, options.device)
    moves = bool(image_lr(method, storage.ipc))
    distilling = network.multiply_adds * _image_passes(method, storage, num_classes, 3) * iterations * moves
    trials = 0 if options.recipe else recipe_search.recipe_trials(*shape[1:])
    side_work = 3 * 128 * narrow.multiply_adds * (1000 + trials * recipe_search.TRIAL_STEPS)
    return 2.0 * (distilling + side_work)


def _image_passes(method: Method, storage: Storage, num_classes: int, per_image: int) -> int:
    """Images that pass a network in an iteration: what the method says, or FRePo's."""
    if hasattr(method, "image_passes"):
        stored = max(1, storage.ipc // storage.parameterization.per_stored)
        return int(method.image_passes(stored, num_classes))
    return per_image * storage.ipc * num_classes + 900
