"""The default: the strongest set that is known for a byte budget and a time allowance.

What `auto` does was chosen by paired runs on validation images (benchmarks/results/auto_choices*.json). Images are
stored as entropy-coded frequencies, several times as many as pixels or low-rank factors in the same bytes; they start
as real images with a teacher's labels, within the bytes from the first step on; FRePo moves coefficients and labels
under a price on bits; it ends early when short trainings on the validation split no longer gain, and the set is
compared there with what it started from, each by whole trainings, before the search for its recipe.
"""

from edgedd.augmentation import Augmentation
from edgedd.distillation import recipe_search
from edgedd.distillation.options import Options
from edgedd.distillation.recipe_search import Search
from edgedd.distillation.selection import Selection
from edgedd.recipe import Recipe
from edgedd.synthetic_set import SyntheticSet

NAME = "auto"
START = Selection("kmeans")
ASKED = ("parameterization", "rank", "bits", "subspaces", "formation", "ipc", "target")


def kind(options: Options) -> str | None:
    """The form that `auto` stores images in where none of it is asked for: frequencies; None: the usual one."""
    asked = any(getattr(options, name) is not None for name in ASKED) or options.half
    return "dct" if options.method == NAME and options.bytes is not None and not asked else None


def recipe(augmentation: Augmentation) -> Recipe:
    """What the search for a recipe begins with; at 30 kB 1,500 steps were 1 point above 600 (auto_choices.json)."""
    return Recipe(steps=recipe_search.LONGEST, augmentation=augmentation)


def better(distilled: SyntheticSet, start: SyntheticSet, search: Search) -> SyntheticSet:
    """What does better in whole trainings on the validation split: the set, or the real images it started from.

    Short ones do not tell: on Fashion-MNIST a set that was level with its start at 250 steps was 1.6 points behind it
    at 600. Each is trained once even where time has run out.
    """
    search.length = distilled.recipe.steps
    both = [start, distilled]
    return search.best(both, [search.score(candidate) for candidate in both])[0]
