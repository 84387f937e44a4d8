"""The watched folder: a picture in inbox/ is classified, one in inbox/CLASS/ is a correction.

The result lies in outbox/NAME.json, whole, and the picture is gone; what is no picture is moved to rejected/. Write
elsewhere on the same file system and rename into the inbox, or else a picture is read when it has not grown for long
enough.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from classifier import Classifier, NotReady
from pictures import PictureError, read_picture

SUFFIXES = (".pgm", ".ppm", ".npy")
A_TURN = 32  # pictures a look at most: requests must not wait for long
PATIENCE_SECONDS = 10.0  # until a file that is no whole picture is given up
MOST_RESULTS = 1000


class Inbox:
    """inbox/, outbox/ and rejected/ in the state folder."""

    def __init__(self, state: Path) -> None:
        self._inbox, self._outbox, self._rejected = (state / name for name in ("inbox", "outbox", "rejected"))
        for folder in (self._inbox, self._outbox, self._rejected):
            folder.mkdir(exist_ok=True)

    def look(self, classifier: Classifier) -> None:
        """Deal with what is there."""
        pictures = sorted(path for path in self._inbox.glob("**/*") if path.suffix in SUFFIXES and path.is_file())
        for path in pictures[:A_TURN]:
            try:
                self._deal_with(path, classifier)
            except NotReady:
                return
            except (PictureError, OSError) as error:
                self._give_up(path, error)
        if pictures:
            self._forget()

    def _deal_with(self, path: Path, classifier: Classifier) -> None:
        pixels = read_picture(path, classifier.shape).tobytes()
        name = path.parent.name
        if path.parent == self._inbox:
            result = classifier.classify(pixels)
        elif classifier.accepts(name):
            result = {"class": name, "correction": classifier.correct(name, pixels)}
        else:
            raise PictureError(f"{name!r} is none of the classes")
        self._write(path, result)
        path.unlink()

    def _write(self, path: Path, result: dict[str, Any]) -> None:
        written = self._outbox / f".{path.name}"
        written.write_text(json.dumps({"file": path.name, **result}) + "\n")
        os.replace(written, self._outbox / f"{path.name}.json")

    def _give_up(self, path: Path, error: Exception) -> None:
        """Later: it may still be growing."""
        try:
            if time.time() - path.stat().st_mtime > PATIENCE_SECONDS:
                os.replace(path, self._rejected / path.name)
                self._write(path, {"error": str(error)})
        except OSError:
            return  # it is gone, or the disk is full: there is nothing to be done here

    def _forget(self) -> None:
        """A device runs for years: only the newest results, and rejected files, are kept."""
        for folder in (self._outbox, self._rejected):
            with suppress(OSError):  # whoever reads the results may be removing them
                files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
                for path in files[:-MOST_RESULTS]:
                    path.unlink()
