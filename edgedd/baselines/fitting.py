"""As many real images as fit the bytes, and then as much quality as still fits."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from edgedd.baselines.coded import Coded
from edgedd.baselines.pool import Pool
from edgedd.baselines.real_set import RealSet
from edgedd.baselines.stores import Store
from edgedd.planning.planner import LONGEST_RECIPE

Make = Callable[[int], RealSet]
BEST_QUALITY = 95
_GUESSES = 5  # by proportion, then the interval is halved


def size(made: RealSet) -> int:
    """Bytes of the file with the longest recipe, so that a search may change the recipe."""
    return len(replace(made, recipe=LONGEST_RECIPE).to_bytes())


def fitted(make: Make, budget: int, most: int, guess: int = 8) -> RealSet | None:
    """The set of `make(ipc)` with the largest ipc of 1..most whose file has at most `budget` bytes, or None.

    Sizes rise with ipc, if not strictly: what is returned always fits.
    """
    low, high, best, tried = 0, most + 1, None, 0
    ipc = min(guess, most)
    while high - low > 1:
        made = make(ipc)
        bytes_ = size(made)
        if bytes_ <= budget:
            low, best = ipc, made
        else:
            high = ipc
        tried += 1
        ipc = int(ipc * budget / bytes_) if tried <= _GUESSES else (low + high) // 2
        ipc = min(max(ipc, low + 1), high - 1)
    return best


def fit(pool: Pool, blank: RealSet, budget: int, *, guess: int = 8) -> RealSet | None:
    """`blank` filled with images of the pool: its store, selection and kind of labels, all that fits the budget."""

    @cache
    def make(ipc: int) -> RealSet:
        return filled(pool, blank, ipc)

    best = fitted(make, budget, pool.most, guess)
    return best and finer(pool, best, budget)


def filled(pool: Pool, blank: RealSet, ipc: int) -> RealSet:
    """`blank` with `ipc` images a class."""
    rows = pool.rows(blank.selection, ipc)
    labels = None if blank.labels is None else pool.labels(rows)
    return replace(blank, coded=blank.store.encode(pool.images(rows)), labels=labels, count=len(rows))


def finer(pool: Pool, made: RealSet, budget: int) -> RealSet:
    """The same images at the best quality that fits: what is less than one more image a class is not wasted."""
    store: Store = made.store
    if not isinstance(store, Coded):
        return made
    images = pool.images(pool.rows(made.selection, made.ipc))
    for quality in range(store.quality + 1, BEST_QUALITY + 1):
        better = replace(store, quality=quality)
        tried = replace(made, store=better, coded=better.encode(images))
        if size(tried) > budget:
            break
        made = tried
    return made
