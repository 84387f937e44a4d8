"""Installations that are killed: `python installing.py A B DIR KILLS SEED` and what is left of them afterwards.

One process forks a child an installation, so that a kill costs milliseconds; imports are done before.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from edgedd.bundles.bundle import Bundle


def state_of(folder: Path) -> tuple[str, str | None]:
    """Modes of the current and of the previous bundle, both whole."""
    previous = folder / "previous"
    modes = Bundle.load(folder / "current").mode, Bundle.load(previous).mode if previous.is_symlink() else None
    return modes


def _install(source: str, folder: str, kill_at: int | None) -> None:
    """In a child: install, and die by SIGKILL before the `kill_at`-th event that the interpreter reports of files."""
    from edgedd.bundles.installation import install

    left = [kill_at]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and folder in str(arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None:
        sys.addaudithook(count)
    install(source, folder)


EVENTS = ("open", "os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.listdir")


def run(source: str, folder: str, *, kill_at: int | None = None, after: float | None = None) -> bool:
    """Install in a child -> whether it got to the end; it is killed at an event, or after some seconds, or not."""
    child = os.fork()
    if child == 0:
        try:
            _install(source, folder, kill_at)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("an installation failed")
    return os.WIFEXITED(status)


def main() -> None:
    first, second, folder, kills, seed = sys.argv[1:]
    import edgedd.device  # noqa: F401
    from edgedd.bundles import installation
    from edgedd.bundles.installation import rollback

    installation.verify = lambda path, **_: Bundle.load(path)  # onnxruntime's threads do not outlive a fork
    sources = {Bundle.load(path).mode: path for path in (first, second)}
    names = list(sources)
    run(sources[names[0]], folder)
    begun = time.perf_counter()
    run(sources[names[1]], folder)
    takes, generator = time.perf_counter() - begun, random.Random(int(seed))
    report = {"seconds": takes, "killed": 0, "finished": 0, "events": 0}
    for number in range(abs(int(kills))) if int(kills) else range(10**6):
        before = state_of(Path(folder))
        other = next(name for name in names if name != before[0])
        how = {"after": generator.uniform(0, takes)} if int(kills) else {"kill_at": number + 1}
        finished = run(sources[other], folder, **how)
        after = state_of(Path(folder))
        assert after[0] in names and (not finished or after[0] == other), (before, after)
        report["finished" if finished else "killed"] += 1
        assert rollback(folder).bundle.mode == next(name for name in names if name != after[0])
        if after[0] == other:  # the next one starts from the same state
            assert state_of(Path(folder)) == (before[0], other)
        else:
            rollback(folder)
        if finished and not int(kills):
            break
    left = sorted(os.listdir(folder)), len(os.listdir(Path(folder) / "versions"))
    assert left == ([".edgedd.lock", "current", "previous", "versions"], 2), left
    print(json.dumps(report))


if __name__ == "__main__":
    main()
