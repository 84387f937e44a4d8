"""The default: the strongest set that is known for a byte budget and a time allowance.

What `auto` does was chosen by paired runs on validation images (benchmarks/results/auto_choices*.json). Images are
stored as entropy-coded frequencies, several times as many as pixels or low-rank factors in the same bytes; they start
as real images with a teacher's labels, within the bytes from the first step on. They are matched with the real images
on snapshots of networks trained on these (edgedd.distillation.snapshots) under a price on bits. The run ends
early when short trainings on the validation split no longer gain, and the set is compared there with what it started
from, before the search for its recipe.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from edgedd.augmentation import Augmentation
from edgedd.distillation import recipe_search
from edgedd.distillation.compute import multiplies_bfloat16
from edgedd.distillation.options import Options
from edgedd.distillation.recipe_search import Search, Validation
from edgedd.distillation.selection import Selection
from edgedd.distillation.snapshots import Ensemble, Snapshots
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.training import MOST_STEPS
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

NAME = "auto"
START = Selection("kmeans")
NETWORKS = ((3, 1), (6, 2))  # minutes of a processor below which so many networks are trained
GPU_NETWORKS = 6
WIDTHS = (128, 64)  # wider networks make better sets, for narrow students too, where time is for enough iterations
ENOUGH = 1000
OVERHEAD = 200  # images: what an iteration costs besides its own; one of 80 took twice as long as their operations
RATES = {"cpu": 9e10, "cuda": 1e13}  # operations a second that are counted on: of a thread; of a GPU that others share
FLOAT32 = 0.5  # of a processor's, where it does not multiply bfloat16
DISTILLING = 0.6  # of the minutes
USUAL_MINUTES = 10
CHOICE_STEPS, CLEAR = 600, 0.02
MIRROR_COSTS = 0.03
RATE = 0.018  # of the quantisation step
ASKED = ("parameterization", "rank", "bits", "subspaces", "formation", "ipc", "target")


def kind(options: Options) -> str | None:
    """The form that `auto` stores images in where none of it is asked for: frequencies; None: the usual one."""
    asked = any(getattr(options, name) is not None for name in ASKED) or options.half
    return "dct" if options.method == NAME and options.bytes is not None and not asked else None


def recipe(augmentation: Augmentation) -> Recipe:
    """What the search for a recipe begins with; at 30 kB 1,500 steps were 1 point above 600 (auto_choices.json)."""
    return recipe_search.faster(Recipe(steps=recipe_search.LONGEST, augmentation=augmentation))


def sized(method: Snapshots, options: Options, shape: tuple[int, int, int], images: int) -> Snapshots:
    """As many and as wide networks as the minutes allow for a set of `images` images, but for what is asked for.

    Without minutes they are the method's own on a processor, and what USUAL_MINUTES allow on a GPU.
    """
    minutes, asked = options.minutes, options.settings or {}
    count = next((n for limit, n in NETWORKS if minutes is not None and minutes < limit), method.networks)
    count = GPU_NETWORKS if options.device == "cuda" else count
    method = method if "networks" in asked else replace(method, networks=count)
    unknown = minutes is None and options.device == "cpu"
    if unknown or options.width is not None or "width" in asked:
        return method
    affordable = 60 * (minutes or USUAL_MINUTES) * DISTILLING * _rate(options.device)
    fitting = (width for width in WIDTHS if _operations(replace(method, width=width), shape, images) < affordable)
    return replace(method, width=next(fitting, method.width))


def _rate(device: str) -> float:
    """Operations a second that are counted on."""
    if device == "cuda":
        return RATES[device]
    return RATES[device] * torch.get_num_threads() * (1 if multiplies_bfloat16(compiled=True) else FLOAT32)


def _operations(method: Snapshots, shape: tuple[int, int, int], images: int) -> float:
    """Of the networks' training and ENOUGH iterations."""
    network = student(default_student(shape, method.width), shape, 2)
    trained = method.networks * (method.train_steps or MOST_STEPS) * Recipe().batch_size
    return 6.0 * network.multiply_adds * (trained + ENOUGH * (images + OVERHEAD))


def paced(method: Snapshots, step: float | None, settings: Mapping[str, str] | None) -> Snapshots:
    """With a learning rate in proportion to the quantisation step of a compact set, unless one is asked for.

    The finer the step, the nearer a set is to what it is to match, and the more of a rate is noise: on Fashion-MNIST
    (step 1.2) a rate of 0.05 took class means further off than they were, on CIFAR-10 (3.8) it is the better one.
    """
    return method if step is None or "lr" in (settings or {}) else replace(method, lr=RATE * step)


def share(teacher: Teacher, ensemble: Ensemble) -> None:
    """Let the teacher be the first of the networks, where it is as wide, and the others train as long as it did."""
    ensemble.most_steps = teacher.most_steps
    if ensemble.passes.network == teacher.trainer.network:
        ensemble.give(teacher.snapshots)


def augmentation(teacher: Teacher, validation: Validation) -> Augmentation:
    """Of what passes the networks: shifts, and mirrors where the teacher, who saw none, knows mirrored images nearly
    as well as the others.
    """
    real = teacher.real
    seen, mirrored = (
        teacher.trainer.accuracy(teacher.parameters, images, validation.labels, real.mean, real.std)
        for images in (validation.images, np.ascontiguousarray(validation.images[..., ::-1]))
    )
    shifted, *_, both = recipe_search.light_augmentations(*real.shape[1:])
    return both if mirrored > seen - MIRROR_COSTS else shifted


def better(distilled: SyntheticSet, start: SyntheticSet, search: Search) -> SyntheticSet:
    """What does better on the validation split: the set, or the real images it started from.

    In trainings of CHOICE_STEPS where there is time for them: on Fashion-MNIST a set that was level with its start at
    250 steps was 1.6 points behind it at 600. Each is trained once even where time has run out, and twice where they
    are within CLEAR.
    """
    steps = CHOICE_STEPS if search.affords(2 * CHOICE_STEPS) else recipe_search.TRIAL_STEPS
    search.length = min(steps, distilled.recipe.steps)
    both = [distilled, start]
    scores = [search.score(candidate) for candidate in both]
    if abs(scores[0] - scores[1]) > CLEAR:
        return both[scores[1] > scores[0]]
    return search.best(both, scores)[0]
