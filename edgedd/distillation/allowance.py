"""How the minutes given to a run are divided: what comes after distilling gets what it needs, up to its share."""

import time
from dataclasses import dataclass, field

from edgedd.distillation import auto, gains, recipe_search

SEARCH, CHECKS, CHOICE = 0.2, 0.05, 0.1  # of the minutes, at most
MARGIN = 1.25  # on trainings as they were timed: for testing what was trained


@dataclass(frozen=True)
class Allowance:
    """From its making on. Deadlines are of time.monotonic(), None where no minutes are given.

    Attributes:
        minutes: in all.
        searches: whether a recipe is searched at the end.
        chooses: whether the run is `auto`'s, which watches for gains and compares the set with its start.
        sides: height and width of the images.
    """

    minutes: float | None
    searches: bool
    chooses: bool
    sides: tuple[int, int]
    begun: float = field(default_factory=time.monotonic)

    def end(self) -> float | None:
        """When everything is to be done."""
        return self._before_end(0.0)

    def search_begins(self, seconds_a_step: float) -> float | None:
        """When `auto`'s choice ends. `seconds_a_step`: of a narrow student's training, 0 where none was timed."""
        return self._before_end(self._search(seconds_a_step))

    def distilling_ends(self, seconds_a_step: float) -> float | None:
        """When the last iteration ends."""
        choice = self._needed(CHOICE, (2 + recipe_search.FINALISTS) * auto.CHOICE_STEPS * seconds_a_step)
        checks = self._needed(CHECKS, gains.PARTS * recipe_search.TRIAL_STEPS * seconds_a_step)
        return self._before_end(self._search(seconds_a_step) + self.chooses * (choice + checks))

    def left_to_distil(self, seconds_a_step: float) -> float | None:
        """Seconds from now until `distilling_ends`."""
        ends = self.distilling_ends(seconds_a_step)
        return None if ends is None else ends - time.monotonic()

    @property
    def _seconds(self) -> float:
        return 60 * (self.minutes or 0.0)

    def _search(self, seconds_a_step: float) -> float:
        """Seconds of the search for a recipe: none where there would be no choice in its share."""
        step = seconds_a_step * (recipe_search.LONGEST if self.chooses else recipe_search.TRIAL_STEPS)
        if not self.searches or recipe_search.LEAST_TRIALS * step >= SEARCH * self._seconds:
            return 0.0
        return self._needed(SEARCH, step * recipe_search.recipe_trials(*self.sides, wide=self.chooses))

    def _needed(self, share: float, seconds: float) -> float:
        """What trainings of so many seconds need, at most their share of the minutes; all of that where 0 is known."""
        return min(share * self._seconds, MARGIN * seconds) if seconds else share * self._seconds

    def _before_end(self, seconds: float) -> float | None:
        return None if self.minutes is None else self.begun + self._seconds - seconds
