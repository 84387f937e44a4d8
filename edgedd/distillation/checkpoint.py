"""Checkpoints of a distillation: written whole or not at all, refused when damaged or when they are of another run.

A line, the SHA-256 of the rest, and what torch.save wrote, whose own sums torch.load does not check.
"""

import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import torch

from edgedd.atomic import remove_leftovers, write_bytes
from edgedd.errors import SettingError

EVERY_SECONDS = 30.0
MAGIC = b"edgedd checkpoint 3\n"


class Checkpoint:
    """The checkpoint beside an output file: `<output>.checkpoint`. `settings` identify the run."""

    def __init__(self, output: Path, settings: dict[str, Any], every_seconds: float = EVERY_SECONDS) -> None:
        self.path = output.with_name(output.name + ".checkpoint")
        self.settings = json.dumps(settings, sort_keys=True)
        self.every_seconds = every_seconds
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether the interval has passed since the last save."""
        return time.monotonic() - self.saved_at >= self.every_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write the state of tensors, numbers and strings."""
        buffer = io.BytesIO()
        torch.save({"settings": self.settings, "state": state}, buffer)
        content = buffer.getvalue()
        write_bytes(self.path, MAGIC + hashlib.sha256(content).digest() + content)
        self.saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is no checkpoint.

        Raises SettingError: the checkpoint is damaged, or was made with other settings.
        """
        if not self.path.exists():
            return None
        try:
            saved = torch.load(io.BytesIO(self._content()), weights_only=True, map_location="cpu")
            settings, state = saved["settings"], saved["state"]
        except Exception as error:
            raise SettingError(f"cannot read the checkpoint {self.path}: delete it and start again") from error
        if settings != self.settings:
            ours, theirs = json.loads(self.settings), json.loads(settings)
            odd = ", ".join(sorted(key for key in ours if ours[key] != theirs.get(key)))
            raise SettingError(f"the checkpoint {self.path} has another {odd}: use the same options or delete it")
        return dict(state)

    def _content(self) -> bytes:
        """What torch.save wrote. Raises OSError, ValueError when it is damaged."""
        with open(self.path, "rb") as file:
            head, content = file.read(len(MAGIC) + hashlib.sha256().digest_size), file.read()
        if head != MAGIC + hashlib.sha256(content).digest():
            raise ValueError("damaged")
        return content

    def remove(self) -> None:
        """After the output is written; also what a killed run left of a checkpoint."""
        self.path.unlink(missing_ok=True)
        remove_leftovers(self.path)
