"""The service of examples/edge_app as a process, for its tests; and `python edge_app.py KILL_AT SCRIPT ARGUMENTS...`.

The latter runs a script that dies by SIGKILL before the KILL_AT-th thing that it does with files in its last argument.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

APP = Path(__file__).parent.parent / "examples" / "edge_app"
sys.path.insert(0, str(APP))
from client import Client  # noqa: E402

EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.chmod", "os.listdir")
PATIENCE = float(os.environ.get("EDGE_APP_PATIENCE", "60"))  # seconds; an emulated board takes longer
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Running:
    """The service over a bundle and a state folder; `kill` as a power cut does, or leave `with`."""

    def __init__(self, bundle: Path, state: Path, *options: str, group: Path | None = None, **variables: str) -> None:
        self.socket = state.with_name(f"{state.name}.socket")
        words = [sys.executable, APP / "service.py", "--bundle", bundle, "--state", state, "--socket", self.socket]
        enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", enter + 'exec "$@"', "sh", *words, *options],
            env=ENVIRONMENT | variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.client = self._connected()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.kill()

    def _connected(self) -> Client:
        while self.process.poll() is None:
            try:
                return Client(str(self.socket))
            except OSError:
                time.sleep(0.01)
        raise AssertionError(self.process.communicate()[1])

    def status(self) -> dict[str, Any]:
        found = self.client.ask(do="status")
        assert not found["error"], found
        return found

    def until(self, **wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while any((found := self.status())[name] != value for name, value in wanted.items()):
            assert time.monotonic() < end, found
            time.sleep(0.01)
        return found

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        said = self._end()  # an emulated processor's runtime says that it does not know it
        assert (self.process.returncode, "Traceback" in said) == (0, False), said

    def _end(self) -> str:
        said = self.process.communicate(timeout=PATIENCE)[1]
        self.client.close()
        return said


def killed(kill_at: int, *words: object) -> bool:
    """Run a script of the service that dies before that event -> whether it died rather than finished."""
    command = [sys.executable, __file__, str(kill_at), *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def main() -> None:
    left, folder = [int(sys.argv[1])], sys.argv[-1]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and folder in str(arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = sys.argv[2:]
    sys.addaudithook(count)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
