"""The default: the strongest set that is known for a byte budget and a time allowance.

What `auto` does was chosen by paired runs on validation images (benchmarks/results/auto_choices*.json). Images are
stored as entropy-coded frequencies, several times as many as pixels or low-rank factors in the same bytes; they start
as real images with a teacher's labels, within the bytes from the first step on. They are matched with the real images
on snapshots of networks trained on these (edgedd.distillation.snapshots) under a price on bits. The run ends
early when short trainings on the validation split no longer gain, and the set is compared there with what it started
from, before the search for its recipe.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from edgedd.augmentation import Augmentation
from edgedd.distillation import recipe_search
from edgedd.distillation.options import Options
from edgedd.distillation.recipe_search import Search, Validation
from edgedd.distillation.selection import Selection
from edgedd.distillation.snapshots import Ensemble, Snapshots
from edgedd.distillation.teacher import TRAINING, WIDTH, Teacher
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.distillation.training import MOST_STEPS, early_stopped
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

NAME = "auto"
START = Selection("kmeans")
NETWORKS = ((3, 1), (6, 2))  # minutes of a slow processor below which so many networks are trained
GPU_NETWORKS = 6
WIDTHS = (128, 64)  # wider networks make better sets, for narrow students too, where time is for enough iterations
ENOUGH = 600  # iterations: 687 on 64 channels were 2.4 points above 1,204 on 32; 454 were below 1,987 (auto_choices)
OVERHEAD = 200  # images: what an iteration costs besides its own; one of 80 took twice as long as their operations
GPU_RATE = 1e13  # operations a second that are counted on, of one that others share; a processor is timed
FASTER = 2.5  # wide networks do more operations a second than narrow ones: 2.3 times as many at 128 as at 32 with AMX
DISTILLING = 0.6  # of the minutes of a GPU
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
    """As many networks as the minutes allow, and on a GPU as wide ones for a set of `images` images.

    But for what is asked for. Without minutes: the method's own on a processor, what USUAL_MINUTES allow on a GPU.
    """
    minutes, on_gpu = options.minutes, options.device == "cuda"
    count = next((n for limit, n in NETWORKS if minutes is not None and minutes < limit), method.networks)
    if not _asks(options, "networks"):
        method = replace(method, networks=GPU_NETWORKS if on_gpu else count)
    if not on_gpu or _asks(options, "width"):
        return method
    affordable = 60 * (minutes or USUAL_MINUTES) * DISTILLING * GPU_RATE
    fitting = (width for width in WIDTHS if _operations(method, width, shape, images) < affordable)
    return replace(method, width=next(fitting, method.width))


def chosen(
    method: Snapshots, options: Options, start: TrainableSet, teacher: Teacher, seconds: float | None
) -> dict[str, Any]:
    """Fields of the method for this start, but what is asked for.

    On a processor that trains fast more networks than minutes alone would say, as wide ones as the `seconds` allow that
    are left for them and for distilling, and of a compact set a rate in proportion to its quantisation step. The finer
    the step, the nearer a set is to what it is to match, and the more of a rate is noise: on Fashion-MNIST (step 1.2) a
    rate of 0.05 took class means further off than they were, on CIFAR-10 (3.8) it is the better one.
    """
    fields = {"width": method.width, "networks": method.networks, "lr": method.lr}
    if seconds is not None and options.device != "cuda":
        if not _asks(options, "networks"):
            method = replace(method, networks=_affordable_networks(method, options, teacher))
            fields["networks"] = method.networks
        if not _asks(options, "width"):
            fields["width"] = _affordable_width(method, seconds, start, teacher)
    if start.step is not None and not _asks(options, "lr"):
        fields["lr"] = RATE * start.step
    return fields


def _asks(options: Options, field: str) -> bool:
    """Whether this field of the method is asked for, as a setting or as an option of its own."""
    return field in (options.settings or {}) or getattr(options, field, None) is not None


def _affordable_networks(method: Snapshots, options: Options, teacher: Teacher) -> int:
    """As many as train as long as the teacher in TRAINING of the minutes, up to Snapshots' own number.

    In five minutes of a fast processor four were 1.3 points above two, on CIFAR-10 at 30,720 bytes.
    """
    if method.networks >= Snapshots.networks:
        return method.networks
    real = teacher.real
    trained = early_stopped(len(real.labels), Augmentation(), teacher.most_steps).steps * Recipe().batch_size
    operations = trained * _an_image(method.width, real.shape)
    fitting = 60 * (options.minutes or 0.0) * TRAINING * teacher.pace(WIDTH) / operations
    return max(method.networks, min(int(fitting), Snapshots.networks))


def _affordable_width(method: Snapshots, seconds: float, start: TrainableSet, teacher: Teacher) -> int:
    """The largest whose networks have time enough at the pace at which a few steps of them are trained.

    Those are not tried which could not have it at FASTER times the pace of the method's own width.
    """
    narrow = teacher.pace(method.width)
    for width in WIDTHS:
        operations = _operations(method, width, teacher.real.shape, start.count)
        if operations < seconds * FASTER * narrow and operations < seconds * teacher.pace(width):
            return width
    return method.width


def _operations(method: Snapshots, width: int, shape: tuple[int, int, int], images: int) -> float:
    """Of training the networks, of this width, and ENOUGH iterations."""
    trained = method.networks * (method.train_steps or MOST_STEPS) * Recipe().batch_size
    return _an_image(width, shape) * (trained + ENOUGH * (images + OVERHEAD))


def _an_image(width: int, shape: tuple[int, int, int]) -> float:
    """Operations of an image's passes there and back."""
    return 6.0 * student(default_student(shape, width), shape, 2).multiply_adds


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
