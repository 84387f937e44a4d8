"""When to train and what came of it; the training itself is learner.py, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LONGEST_WAIT = 3600.0


@dataclass(frozen=True)
class Policy:
    """When to train again: after so many new corrections, or so many seconds after the first of them; how long."""

    corrections: int = 8
    seconds: float = 600.0
    steps: int = 200


class Training:
    """At most one learner at a time; after a failure the next one waits, twice as long each time.

    Attributes:
        done: how many learners ended well since the service started.
        result: what the last one printed.
        error: why the last one failed; empty when it did not.
    """

    def __init__(self, bundle: Path, state: Path, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._bundle, self._state, self._policy, self._clock = bundle, state, policy, clock
        self._learner: subprocess.Popen[bytes] | None = None
        self._waiting_since: float | None = None
        self._failures, self._not_before = 0, 0.0
        self.done, self.result, self.error = 0, dict[str, object](), ""

    @property
    def running(self) -> bool:
        """Whether a learner is at work."""
        return self._learner is not None

    def want(self, generation: int | None, last: int, *, asked: bool = False) -> None:
        """Start a learner when there is reason to: no weights at all, or corrections they do not know."""
        now, new = self._clock(), last - (generation or 0)
        if generation is not None and new <= 0:
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        waited = now - self._waiting_since >= self._policy.seconds
        if not self.running and (
            asked or (now >= self._not_before and (generation is None or new >= self._policy.corrections or waited))
        ):
            self._start()

    def poll(self) -> bool:
        """True once for every learner that ended well: there are new weights to load."""
        if self._learner is None or self._learner.poll() is None:
            return False
        learner, self._learner, self._waiting_since = self._learner, None, None
        assert learner.stdout
        with learner.stdout as output:
            said = _parsed(output.read())
        if learner.returncode == 0:
            self.done, self.result, self.error, self._failures = self.done + 1, said, "", 0
            return True
        self._failed(str(said.get("error", f"the learner ended with status {learner.returncode}")))
        return False

    def stop(self) -> None:
        """End the learner; what it had not saved is lost and will be made again."""
        if self._learner is not None:
            self._learner.kill()
            self._learner.wait()

    def _failed(self, why: str) -> None:
        self.error = why
        self._not_before = self._clock() + min(10.0 * 2**self._failures, LONGEST_WAIT)
        self._failures = min(self._failures + 1, 16)

    def _start(self) -> None:
        script = Path(__file__).with_name("learner.py")
        words = [sys.executable, script, self._bundle, self._state, "--steps", str(self._policy.steps)]
        try:
            self._learner = subprocess.Popen([*words, "--parent", str(os.getpid())], stdout=subprocess.PIPE)
        except OSError as error:  # no memory for another process, say
            self._failed(f"the learner could not be started: {error.strerror}")
            return
        with suppress(OSError):  # when memory runs out it is the one to go, from its first instruction on
            Path(f"/proc/{self._learner.pid}/oom_score_adj").write_text("1000")


def _parsed(output: bytes) -> dict[str, object]:
    try:
        values = json.loads(output)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
