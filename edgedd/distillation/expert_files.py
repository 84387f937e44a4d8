"""Experts on disk: a folder with `experts.json`, which says what they are, and a safetensors file an expert.

`expert-00003.safetensors` has `weights` (E + 1, P), float32 or float16, a row an epoch from the start on; one still in
training is `expert-00003.part`, in float32, with the epochs done. Files are written whole or not at all.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from edgedd.atomic import only_writer, remove_leftovers, write_bytes
from edgedd.errors import SettingError

MANIFEST = "experts.json"
VERSION = 1
MOST_MANIFEST, MOST_HEADER = 2**14, 2**10  # bytes


@dataclass(frozen=True)
class ExpertSettings:
    """What experts are. Plain SGD, as MTT's: no momentum, no decay, one family of DSA a batch, numbers an image.

    Attributes:
        data: fingerprint of the data set; its training part without the validation split of `split_seed` is learned.
        network: name of the student, `parameters` its number of weights P.
        strategy: families of the augmentation: "natural", "digits" (no mirror) or "none".
        half: weights are stored in float16.
    """

    data: str
    network: str
    parameters: int
    epochs: int
    lr: float = 0.01
    batch: int = 256
    strategy: str = "natural"
    seed: int = 0
    split_seed: int = 0
    half: bool = False


class ExpertFolder:
    """Experts that a schedule reads, two epochs at a time."""

    def __init__(self, folder: Path, settings: ExpertSettings) -> None:
        self.folder, self.settings = folder, settings
        self.files = sorted(folder.glob("expert-*.safetensors"))

    @classmethod
    def open(cls, folder: Path) -> "ExpertFolder":
        """Raises SettingError: the folder has no experts, or a manifest that cannot be used."""
        found = cls(folder, _read(folder))
        if not found.files:
            raise SettingError(f"{folder} has no finished expert: run edgedd experts -o {folder} to its end")
        return found

    @classmethod
    def create(cls, folder: Path, settings: ExpertSettings) -> "ExpertFolder":
        """A new folder, or one with experts of the same settings to go on with. Raises SettingError otherwise."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"cannot make the folder {folder}: {error.strerror}; choose another") from error
        with only_writer(folder / MANIFEST, wait=True):
            if not (folder / MANIFEST).exists():
                text = json.dumps({"version": VERSION, **asdict(settings)}, indent=1)
                write_bytes(folder / MANIFEST, text.encode())
        theirs = _read(folder)
        odd = [f.name for f in fields(settings) if getattr(settings, f.name) != getattr(theirs, f.name)]
        if odd:
            raise SettingError(f"{folder} has experts of another {', '.join(odd)}: use the same, or another folder")
        return cls(folder, settings)

    @property
    def count(self) -> int:
        """Finished experts."""
        return len(self.files)

    @property
    def epochs(self) -> int:
        """The last epoch that each of them has."""
        return self.settings.epochs

    @property
    def stored_bytes(self) -> int:
        """Of the finished experts."""
        return sum(path.stat().st_size for path in self.files)

    def weights(self, expert: int, epoch: int) -> torch.Tensor:
        """(P,) float32: those of an expert after `epoch` epochs."""
        path = self.files[expert]
        try:
            self._check_size(path)
            with safe_open(path, framework="numpy") as file:
                row = file.get_slice("weights")[epoch : epoch + 1]
        except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
            raise SettingError(f"cannot read the expert {path}: delete it and run edgedd experts again") from error
        if row.shape != (1, self.settings.parameters) or not np.isfinite(row).all():
            raise SettingError(f"the expert {path} is damaged: delete it and run edgedd experts again")
        return torch.from_numpy(row[0].astype(np.float32))

    @contextmanager
    def only_writer(self, number: int) -> Iterator[None]:
        """Be the one process that trains expert `number`. Raises SettingError when another one does."""
        with only_writer(self._path(number, "part")):
            remove_leftovers(self._path(number, "safetensors"))
            yield

    def done(self, number: int) -> bool:
        """Whether expert `number` is finished; then what a cut has left beside it goes."""
        if not self._path(number, "safetensors").exists():
            return False
        with suppress(SettingError), self.only_writer(number):
            self._path(number, "part").unlink(missing_ok=True)
        return True

    def part(self, number: int) -> list[torch.Tensor]:
        """Its epochs so far, to go on from; none where there are none, or not readable ones."""
        path = self._path(number, "part")
        try:
            self._check_size(path)
            rows = load(path.read_bytes())["weights"]
        except (OSError, SafetensorError, LookupError, ValueError, TypeError):
            return []
        wanted = rows.ndim == 2 and rows.shape[1] == self.settings.parameters and rows.dtype == np.float32
        return list(torch.from_numpy(rows)) if wanted and len(rows) <= self.epochs and np.isfinite(rows).all() else []

    def keep(self, number: int, weights: list[torch.Tensor]) -> None:
        """Epochs 0.. of an expert: the finished file once they are all there, before that a part."""
        rows = torch.stack(weights).cpu().numpy()
        if len(rows) <= self.epochs:
            write_bytes(self._path(number, "part"), save({"weights": rows}))
            return
        stored = rows.astype(np.float16 if self.settings.half else np.float32)
        write_bytes(self._path(number, "safetensors"), save({"weights": stored}))
        self._path(number, "part").unlink(missing_ok=True)

    def _check_size(self, path: Path) -> None:
        """Raises OSError, or ValueError for a file that holds more than an expert, or a longer header."""
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
            size = file.seek(0, os.SEEK_END)
        if header > MOST_HEADER or size > 8 + MOST_HEADER + 4 * (self.epochs + 1) * self.settings.parameters:
            raise ValueError("not the file of an expert")

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"expert-{number:05d}.{suffix}"


def _read(folder: Path) -> ExpertSettings:
    path = folder / MANIFEST
    try:
        with open(path, "rb") as file:
            values: Any = json.loads(file.read(MOST_MANIFEST))
        version = values.pop("version")
        if version != VERSION:
            raise SettingError(f"{path} is of version {version}, wanted {VERSION}: train the experts with this edgedd")
        kinds = get_type_hints(ExpertSettings)
        if not all(isinstance(value, kinds[name]) for name, value in values.items()):
            raise ValueError("a value of another kind")
        if min(values["parameters"], values["epochs"], values["batch"]) < 1:
            raise ValueError("an impossible number")
        return ExpertSettings(**values)
    except SettingError:
        raise
    except FileNotFoundError as error:
        wanted = f"edgedd experts --data ... -o {folder} makes them"
        raise SettingError(f"{folder} has no experts ({MANIFEST} is not there): {wanted}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SettingError(f"cannot read {path}: delete the folder and train the experts again") from error
