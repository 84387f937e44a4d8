"""Corrected images on disk: one file of records, each synced before it is confirmed, so that no cut loses one.

A record: magic, CRC-32 of all behind it, number, lengths of name and pixels; then the class's name (UTF-8) and the
pixels. Numbers rise from 1 and are never used again. What a cut left of a record at the end is removed when the file
is next opened; a damaged one in the middle is passed over.
"""

import errno
import os
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MAGIC = b"EDC1"
HEAD = struct.Struct("<4sIQHI")
LONGEST_NAME, LARGEST_IMAGE = 1024, 2**20  # bytes


class Correction(NamedTuple):
    """The class that somebody named for an image; `pixels` are its bytes as a bundle's images are, (C, H, W)."""

    number: int
    name: str
    pixels: bytes


def encode(correction: Correction) -> bytes:
    """The record."""
    name = correction.name.encode()
    rest = HEAD.pack(MAGIC, 0, correction.number, len(name), len(correction.pixels))[8:] + name + correction.pixels
    return MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest


def parse(content: bytes) -> tuple[list[Correction], int]:
    """The whole records of a file, and where the last of them ends."""
    found, end = [], 0
    at = content.find(MAGIC)
    while at >= 0:
        correction, after = _record(content, at)
        if correction is None:
            at = content.find(MAGIC, at + 1)
            continue
        found.append(correction)
        end = after
        at = content.find(MAGIC, end)
    return found, end


def read(path: Path) -> list[Correction]:
    """The records of a file that another process may be appending to; none where there is no file."""
    return parse(path.read_bytes())[0] if path.exists() else []


def _record(content: bytes, at: int) -> tuple[Correction | None, int]:
    if len(content) - at < HEAD.size:
        return None, at
    _, checksum, number, name_bytes, image_bytes = HEAD.unpack_from(content, at)
    middle = at + HEAD.size + name_bytes
    end = middle + image_bytes
    too_long = name_bytes > LONGEST_NAME or image_bytes > LARGEST_IMAGE or end > len(content)
    if too_long or zlib.crc32(content[at + 8 : end]) != checksum:
        return None, at
    return Correction(number, content[at + HEAD.size : middle].decode("utf-8", "replace"), content[middle:end]), end


class Journal:
    """The file, open for appending by the one process that may.

    Attributes:
        last: number of the newest correction; 0 when there was none.
        count: how many are kept.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        """Open `path`, or make it. It stays within `budget_bytes`: see `append`."""
        self._path, self._budget = path, budget_bytes
        path.with_name(f".{path.name}").unlink(missing_ok=True)  # a rewriting that was cut
        records, end = parse(path.read_bytes()) if path.exists() else ([], 0)
        self.last = max((record.number for record in records), default=0)
        self.count = len(records)
        self._open()
        if os.fstat(self._file).st_size != end:
            os.ftruncate(self._file, end)
        self._sync()

    def append(self, name: str, pixels: bytes) -> int:
        """Keep a correction and return its number once it is on the disk. Raises OSError, and then nothing is kept.

        When the file would outgrow its budget it is rewritten to three quarters of it: the oldest of whichever class
        has most goes first, so that a class that is corrected often does not push out the others.
        """
        record = encode(Correction(self.last + 1, name, pixels))
        size = os.fstat(self._file).st_size
        if size + len(record) > self._budget:
            self._rewrite(self._budget * 3 // 4 - len(record))
            size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self.last += 1
        self.count += 1
        return self.last

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)

    def _rewrite(self, room: int) -> None:
        kept = balanced(parse(self._path.read_bytes())[0], room)
        new = self._path.with_name(f".{self._path.name}")
        with open(new, "wb") as file:
            file.write(b"".join(map(encode, kept)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
        os.close(self._file)
        self._open()
        self._sync()
        self.count = len(kept)

    def _sync(self) -> None:
        os.fsync(self._file)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def balanced(records: Sequence[Correction], room: int) -> list[Correction]:
    """As many records as fit into `room` bytes: the oldest of the class that has most goes, until they do."""
    kept = list(records)
    sizes = Counter(record.name for record in kept)
    total = sum(len(encode(record)) for record in kept)
    while kept and total > room:
        name = sizes.most_common(1)[0][0]
        place = next(place for place, record in enumerate(kept) if record.name == name)
        total -= len(encode(kept.pop(place)))
        sizes[name] -= 1
    return kept
