"""The student that serves, the images it saw last, and the corrections that it got."""

import math
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from corrections import Journal, read
from generations import Generations

import edgedd

LONGEST_NAME = 64  # characters
REMEMBERED = 64  # images that can be corrected by their id
SMALLEST_BUDGET = 16  # corrections


class NotReady(Exception):
    """There are no weights yet."""


class Classifier:
    """Attributes: `generation`, the number of the weights (None: no training yet); `journal`, the corrections;
    `classes`, those of the set and those that corrections named, and how many more may be: `spare`.
    """

    def __init__(self, bundle: Path, state: Path, keep_bytes: int) -> None:
        self._student = edgedd.Student.load(bundle, threads=1, low_memory=True)
        self.shape, own = self._student.bundle.image_shape, self._student.classes
        self.image_bytes = math.prod(self.shape)
        if keep_bytes < SMALLEST_BUDGET * (self.image_bytes + 100):
            wanted = SMALLEST_BUDGET * (self.image_bytes + 100)
            raise edgedd.EdgeddError(f"--keep-bytes {keep_bytes}, wanted at least {wanted} for images of this size")
        self._generations = Generations(state, self._student)
        self._generations.tidy()
        self.journal = Journal(state / "corrections", keep_bytes)
        new = (each.name for each in read(state / "corrections") if each.name not in own)
        self.classes = (*own, *list(dict.fromkeys(new))[: self._student.spare_classes])
        self.spare = len(own) + self._student.spare_classes - len(self.classes)
        self.generation: int | None = None
        self.reload()
        self._run = secrets.token_hex(4)  # ids of another run mean nothing: they must not name another image
        self._seen = OrderedDict[str, bytes]()
        self.requests = 0

    def reload(self) -> None:
        """Take the newest weights over, and remove those that nobody needs any more. No learner may be running."""
        self.generation = self._generations.load_newest(self._student)
        self._generations.tidy()
        self.journal.last = max(self.journal.last, self.generation or 0)  # should the corrections have been deleted

    def classify(self, pixels: bytes) -> dict[str, Any]:
        """Class and probability of an image (C, H, W) in bytes, and the id by which it can be corrected."""
        if self.generation is None:
            raise NotReady
        self.requests += 1
        image = np.frombuffer(pixels, np.uint8).reshape(1, *self.shape)
        scores = self._student.predict(image)[0].astype(np.float64)
        shares = np.exp(scores - scores.max())
        best = int(shares.argmax())
        name = f"{self._run}-{self.requests}"
        self._seen[name] = pixels
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        found = {"id": name, "class": self._student.classes[best], "probability": float(shares[best] / shares.sum())}
        return found | {"generation": self.generation}

    def accepts(self, name: object) -> bool:
        """Whether an image can be said to show this: a class, or a new one while the student has an output to spare."""
        if name in self.classes:
            return True
        return self.spare > 0 and isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()

    def correct(self, name: str, pixels: bytes) -> int:
        """Keep what an image shows; the number of the correction, once it is on the disk. Raises OSError."""
        number = self.journal.append(name, pixels)
        if name not in self.classes:
            self.classes, self.spare = (*self.classes, name), self.spare - 1
        return number

    def seen(self, name: str) -> bytes | None:
        """The image that was classified under an id, as long as it is remembered."""
        return self._seen.get(name)

    def summary(self) -> str:
        """One line for people."""
        if self.generation is None:
            return "training for the first time"
        new = self.journal.last - self.generation
        return f"{self.requests} requests, {self.journal.count} corrections kept, {new} not learnt yet"
