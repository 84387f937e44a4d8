"""The best that real images do within some bytes, for each way to store them: chosen by short trainings on validation.

First the setting of the store (for JPEG and WebP the size, then the quality), then hard labels or the teacher's, then
how the images are chosen, then the training recipe as for a synthetic set. The test images are never read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import edgedd
from edgedd.baselines.coded import Coded
from edgedd.baselines.fitting import filled, finer, fit
from edgedd.baselines.levels import Levels
from edgedd.baselines.pool import SELECTIONS, Pool
from edgedd.baselines.real_set import RealSet
from edgedd.baselines.stores import QUALITIES, Store, stores
from edgedd.distillation import recipe_search
from edgedd.distillation.compute import Compute
from edgedd.distillation.loop import Progress
from edgedd.distillation.options import Options
from edgedd.distillation.real_images import RealImages
from edgedd.distillation.recipe_search import FINALISTS, Search, Validation
from edgedd.distillation.run_length import NARROW
from edgedd.distillation.snapshots import Snapshots
from edgedd.distillation.teacher import Teacher
from edgedd.distillation.training import Trainer
from edgedd.errors import SettingError
from edgedd.labelled_images import LabelledImages
from edgedd.recipe import Recipe
from edgedd.students import default_student, student
from edgedd.synthetic_set import SyntheticSet

STEPS = 600  # of a training at least, where the search starts; it goes on to more where they help
OnStep = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True)
class Wanted:
    """What is compared.

    Attributes:
        budget_bytes: of a file at most.
        names: of `stores`; by default all.
        recipe: where the search of recipes starts: see `start`.
        search_recipe: whether it is searched; a published recipe takes its place otherwise.
    """

    budget_bytes: int
    names: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    search_recipe: bool = True


def start(recipe: Recipe) -> Recipe:
    """Where a search starts beside a set of this recipe: where the set's did; it can reach as many steps."""
    return Recipe(steps=max(STEPS, math.ceil(recipe.steps / recipe_search.LONGER)))


class BaselineSearch:
    """The teacher, the images to choose from and the validation part, shared by all searches of one data set.

    `on_step(stage, done, all, loss)` counts the teacher's steps and the short trainings ("teacher", "baselines").
    """

    def __init__(self, data: LabelledImages, seed: int = 0, on_step: OnStep | None = None) -> None:
        self.data, self.seed, self.on_step = data, seed, on_step
        self.training, held_out = data.split(seed=seed)
        self.validation = Validation.drawn(held_out, seed)
        narrow = student(default_student(data.shape, NARROW), data.shape, data.num_classes)
        trials = sum(_trials(settings, data.shape) for settings in stores(data.shape).values())
        work = 6.0 * 128 * narrow.multiply_adds * recipe_search.TRIAL_STEPS * trials
        compute = Compute.for_work("cpu", work)
        real = RealImages.of(self.training, compute)
        options = Options(ipc=1, labels="teacher", seed=seed)
        teacher = Teacher(real, options, compute, self._told, Snapshots.networks)  # as many as label `auto`'s sets
        self.trainer = Trainer(narrow, compute)
        self.pool = Pool(real, teacher, seed)
        self.done, self.all = 0, 0

    def run(self, wanted: Wanted) -> Iterator[tuple[str, RealSet]]:
        """The name and the best set of each kind of store that holds at least one image a class within the bytes.

        Raises SettingError for an unknown name.
        """
        known = stores(self.data.shape)
        names = wanted.names or tuple(name for name, settings in known.items() if settings)
        odd = [name for name in names if name not in known]
        if odd:
            raise SettingError(f"no store {odd[0]!r}, wanted {', '.join(known)}")
        self.done, self.all = 0, sum(_trials(known[name], self.data.shape, wanted) for name in names)
        for name in names:
            before = self.done
            best = self._best(known[name], wanted)
            self.done = before + _trials(known[name], self.data.shape, wanted)
            self._tell()
            if best is not None:
                yield name, best

    def random_set(self, like: SyntheticSet, number: int) -> SyntheticSet:
        """Draw `number` of random real images, as many as `like` has; the teacher's labels where its own are soft."""
        soft = bool((like.tensors["labels"].max(1) < 255).any())
        blank = self._blank(Levels(8, *self.data.shape[1:]), Wanted(0))
        pool = Pool(self.pool.real, self.pool.teacher, self.seed + number)
        return filled(pool, blank if soft else replace(blank, labels=None), min(like.ipc, pool.most)).synthetic()

    def best_of(self, candidates: Sequence[SyntheticSet]) -> SyntheticSet:
        """The one that trains best on validation."""
        return Search(self.validation, self.trainer, [self.seed, 9], 1).best(candidates)[0]

    def _best(self, settings: Sequence[Store], wanted: Wanted) -> RealSet | None:
        seed = [self.seed, 8, *_numbers(settings)]
        contest = Search(self.validation, self.trainer, seed, 1, lambda done, trials: self._count())
        made, score = self._setting(contest, settings, wanted)
        if made is None:
            return None
        made, score = _contest(contest, [made, *self._fitting([replace(made, labels=None)], wanted)], score)
        others = [replace(made, selection=name) for name in SELECTIONS if name != made.selection]
        made, score = _contest(contest, [made, *self._fitting(others, wanted)], score)
        if not wanted.search_recipe:
            return made
        how: dict[str, Any] = {"seed": [*seed, 1], "wide": True, "on_trial": lambda done, trials: self._count()}
        real, kept = self.training, self.pool.rows(made.selection, made.ipc)
        judges = self.validation.filled(real.train_images, real.train_labels, kept, self.seed)
        found = recipe_search.choose_recipe(made.synthetic(), judges, self.trainer, **how)
        return self._within(made.trained_by(found), wanted)

    def _setting(
        self, contest: Search, settings: Sequence[Store], wanted: Wanted
    ) -> tuple[RealSet | None, float | None]:
        """Random images with the teacher's labels in the store's best setting, and their score."""
        best: RealSet | None = None
        score: float | None = None
        for group in _groups(settings):
            size = best and (best.store.height, best.store.width)
            blanks = [self._blank(store, wanted) for store in group if size in (None, (store.height, store.width))]
            contenders = [*([best] if best else []), *self._fitting(blanks, wanted)]
            if contenders:
                best, score = _contest(contest, contenders, score)
        return best, score

    def _fitting(self, blanks: Sequence[RealSet], wanted: Wanted) -> list[RealSet]:
        """Each filled with what fits the bytes; those of which not one image a class does are left out."""
        made = [fit(self.pool, blank, wanted.budget_bytes, guess=max(1, blank.ipc)) for blank in blanks]
        return [each for each in made if each is not None]

    def _within(self, made: RealSet, wanted: Wanted) -> RealSet:
        """Labels of the found temperature mostly take fewer bytes: better quality then, or else fewer images."""
        if len(made.to_bytes()) <= wanted.budget_bytes:
            return finer(self.pool, made, wanted.budget_bytes)
        rows = self.pool.rows(made.selection, made.ipc)
        while len(made.to_bytes()) > wanted.budget_bytes and made.ipc > 1:
            kept = np.arange(len(rows)) % made.ipc < made.ipc - 1
            rows, labels = rows[kept], None if made.labels is None else made.labels[kept]
            coded = made.store.encode(self.pool.images(rows))
            made = replace(made, coded=coded, labels=labels, count=len(rows))
        return made

    def _blank(self, store: Store, wanted: Wanted) -> RealSet:
        about = {"method": "real images", "data": self.data.fingerprint, "seed": self.seed}
        return RealSet(
            store=store,
            coded=b"",
            labels=np.zeros((0, self.data.num_classes), np.uint8),
            count=0,
            selection="random",
            shape=self.data.shape,
            mean=self.training.mean,
            std=self.training.std,
            classes=self.data.classes,
            recipe=wanted.recipe,
            provenance=about | {"edgedd": edgedd.__version__},
        )

    def _count(self) -> None:
        """Close finalists take more than were told of."""
        self.done = min(self.done + 1, self.all)
        self._tell()

    def _tell(self) -> None:
        self._told(Progress("baselines", self.done, self.all, None))

    def _told(self, progress: Progress) -> None:
        if self.on_step:
            self.on_step(*progress)


def _contest(contest: Search, contenders: Sequence[RealSet], score: float | None) -> tuple[RealSet, float | None]:
    """The best and its score; that of the first contender may be known already. One alone is not tested."""
    if len(contenders) == 1:
        return contenders[0], score
    candidates = [made.synthetic() for made in contenders]
    winner, found = contest.best(candidates, [] if score is None else [score])
    return next(made for made, its in zip(contenders, candidates, strict=True) if its is winner), found


def _groups(settings: Sequence[Store]) -> list[list[Store]]:
    """JPEG and WebP: every size at the middle quality, then the other qualities; of levels all at once."""
    middle: list[Store] = [s for s in settings if isinstance(s, Coded) and s.quality == _middle(s.codec)]
    rest = [s for s in settings if s not in middle]
    return [group for group in (middle, rest) if group]


def _middle(codec: str) -> int:
    return QUALITIES[codec][len(QUALITIES[codec]) // 2]


def _numbers(settings: Sequence[Store]) -> list[int]:
    """A seed of its own for each kind of store."""
    return [len(settings), *str(settings[0]).encode()[:4]]


def _trials(settings: Sequence[Store], shape: tuple[int, int, int], wanted: Wanted | None = None) -> int:
    """How many short trainings a store takes at most."""
    groups = _groups(settings)
    mine = sum(len(g) + FINALISTS for g in groups if len(g) > 1)
    if len(groups) > 1:  # only the qualities at one size
        mine -= len(groups[1]) - len(groups[1]) // len(groups[0])
    mine = mine or 1  # one setting alone is first tested beside its hard labels
    searched = recipe_search.recipe_trials(*shape[1:], wide=True) if wanted is None or wanted.search_recipe else 0
    return mine + 1 + FINALISTS + len(SELECTIONS) - 1 + FINALISTS + searched
