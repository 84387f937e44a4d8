"""Does a run still gain? Short trainings on the validation split, now and then; it ends soon after they stop rising."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgedd.distillation.loop import Loop

EVERY = 200
FROM, PARTS = 0.4, 10
LEAST_GAIN = 0.002
PATIENCE = 3  # scores: one is within about half a point
TAIL = 0.15  # of the iterations done: over so many the rates fall to 0 once gains have ended
log = logging.getLogger("edgedd")


@dataclass
class Gains:
    """Scores a set under way every tenth of its run, but at most once in EVERY iterations.

    Attributes:
        score: validation accuracy of the set as it would be stored now.
    """

    score: Callable[[Loop], float]

    def __call__(self, loop: Loop) -> None:
        """After each iteration."""
        apart = max(EVERY, loop.total // PARTS)
        if loop.bend or loop.iteration % apart or not FROM * loop.total <= loop.iteration < loop.total - apart // 2:
            return
        loop.scores.append((loop.iteration, self.score(loop)))
        scores = [score for _, score in loop.scores]
        if gains_ended(scores):
            loop.finish_in(int(TAIL * loop.iteration))
            log.warning(
                f"no gain on validation since iteration {loop.scores[-PATIENCE - 1][0]} ({max(scores):.1%} in short "
                f"trainings): finishing after {loop.total} iterations"
            )


def gains_ended(scores: list[float]) -> bool:
    """Whether the last PATIENCE scores are not above the best before them by LEAST_GAIN."""
    if len(scores) <= PATIENCE:
        return False
    return max(scores[-PATIENCE:]) < max(scores[:-PATIENCE]) + LEAST_GAIN
