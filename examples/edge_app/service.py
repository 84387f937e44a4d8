"""A service that classifies images, takes corrections and learns from them in the background.

    python service.py --bundle BUNDLE --state DIR --socket PATH

Requests are lines of JSON on a Unix socket, see README.md; pictures that appear in DIR/inbox are classified too. One
thread does it all: what takes long is done by learner.py, in a process of its own.
"""

import argparse
import fcntl
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from classifier import Classifier
from inbox import Inbox
from notify import notify
from protocol import Refused, answer
from training import Policy, Training

import edgedd

TURN_SECONDS = 0.5
MOST_CLIENTS = 16
WRONG_USE = 2


class Service:
    """The loop around a classifier, its training, a socket and a folder."""

    def __init__(self, classifier: Classifier, training: Training, inbox: Inbox, listener: socket.socket) -> None:
        self._classifier, self._training, self._inbox = classifier, training, inbox
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._received = dict[socket.socket, bytes]()
        self._longest = 4 * classifier.image_bytes // 3 + 4096
        self.stopping = False

    def run(self) -> None:
        """Until `stopping`; systemd hears of every turn."""
        next_turn = 0.0
        notify(f"READY=1\nSTATUS={self._classifier.summary()}")
        while not self.stopping:
            for key, _ in self._selector.select(TURN_SECONDS):
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._read(key.fileobj)  # type: ignore[arg-type]
            if time.monotonic() >= next_turn:
                self._turn()
                next_turn = time.monotonic() + TURN_SECONDS
        self._training.stop()

    def _turn(self) -> None:
        """What needs doing now and then."""
        notify(f"WATCHDOG=1\nSTATUS={self._classifier.summary()}")
        if self._training.poll():
            self._classifier.reload()
        self._training.want(self._classifier.generation, self._classifier.journal.last)
        self._inbox.look(self._classifier)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        if len(self._received) >= MOST_CLIENTS:
            client.close()
            return
        client.settimeout(1)
        self._received[client] = b""
        self._selector.register(client, selectors.EVENT_READ, True)

    def _read(self, client: socket.socket) -> None:
        """Answer the lines that are whole; a client that sends too long a one, or does not read, is left."""
        try:
            received = client.recv(2**16)
            *lines, rest = (self._received[client] + received).split(b"\n")
            for line in lines:
                client.sendall(answer(line, self._classifier, self._training))
            if not received or len(rest) > self._longest:
                raise Refused("gone, or a line without end")
            self._received[client] = rest
        except (OSError, Refused):
            self._selector.unregister(client)
            del self._received[client]
            client.close()


def main() -> int:
    """0 after SIGTERM, 2 when it cannot start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle, such as `current` of an installation")
    parser.add_argument("--state", type=Path, required=True, help="the folder of corrections and weights")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--retrain-after", type=int, default=8, metavar="N", help="new corrections")
    parser.add_argument("--retrain-seconds", type=float, default=600, metavar="S", help="or so long after the first")
    parser.add_argument("--steps", type=int, default=200, help="of a retraining")
    parser.add_argument("--keep-bytes", type=int, default=400_000, help="corrections on disk at most")
    options = parser.parse_args()
    try:
        with suppress(FileExistsError):
            options.state.mkdir(parents=True)
        with open(options.state / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _serve(options)
    except BlockingIOError:
        return _refuse(f"another service works in {options.state}: stop it, or give this one another --state")
    except (edgedd.EdgeddError, OSError) as error:
        return _refuse(str(error))
    return 0


def _serve(options: argparse.Namespace) -> None:
    bundle = Path(os.path.realpath(options.bundle))  # what is installed later is for the next start
    classifier = Classifier(bundle, options.state, options.keep_bytes)
    training = Training(bundle, options.state, Policy(options.retrain_after, options.retrain_seconds, options.steps))
    options.socket.unlink(missing_ok=True)  # what a killed service left: the lock says that there is no other
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(options.socket))
        os.chmod(options.socket, 0o660)
        listener.listen(MOST_CLIENTS)
        service = Service(classifier, training, Inbox(options.state), listener)
        signal.signal(signal.SIGTERM, lambda *_: setattr(service, "stopping", True))
        signal.signal(signal.SIGINT, lambda *_: setattr(service, "stopping", True))
        service.run()
    options.socket.unlink(missing_ok=True)


def _refuse(message: str) -> int:
    print(f"edge-app: {message}", file=sys.stderr)
    return WRONG_USE


if __name__ == "__main__":
    sys.exit(main())
