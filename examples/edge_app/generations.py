"""Weights on disk by generation: `weights-<bundle>-<number>.safetensors` learnt corrections up to that number.

The name is the state: one rename, which `Student.save` ends with, commits the weights together with what they
learnt. Generation 0 learnt the synthetic set alone, and every other one starts from it, so that the result does not
depend on how often training was cut. The two newest are kept.
"""

import hashlib
import re
from pathlib import Path

import edgedd

KEPT = 2


class Generations:
    """The weights of one bundle in a folder."""

    def __init__(self, folder: Path, student: edgedd.Student) -> None:
        manifest = (student.bundle.path / "manifest.json").read_bytes()
        self._folder, self._key = folder, hashlib.sha256(manifest).hexdigest()[:12]

    def path(self, number: int) -> Path:
        """Where a generation lies, or will."""
        return self._folder / f"weights-{self._key}-{number:09d}.safetensors"

    def numbers(self) -> list[int]:
        """Those that are there, oldest first."""
        return sorted(int(path.stem[-9:]) for path in self._folder.glob(f"weights-{self._key}-?????????.safetensors"))

    def load_newest(self, student: edgedd.Student) -> int | None:
        """Give the student the newest whole generation and return its number; None when there is none.

        One that cannot be read is removed: the next training makes it again.
        """
        for number in reversed(self.numbers()):
            try:
                student.load_weights(self.path(number))
                return number
            except edgedd.EdgeddError:
                self.path(number).unlink()
        return None

    def tidy(self) -> None:
        """Remove all but generation 0 and the newest, those of other bundles, and what killed writers left.

        Nobody may be writing now.
        """
        kept = {self.path(number).name for number in (*self.numbers()[-KEPT:], 0)}
        for path in self._folder.iterdir():
            if re.match(r"\.?weights-", path.name) and path.name not in kept:
                path.unlink(missing_ok=True)
