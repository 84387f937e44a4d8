"""Images as pixels of few levels, at full size or down-scaled, packed and compressed without loss."""

import lzma
import zlib
from dataclasses import dataclass

import numpy as np

from edgedd.baselines import picture_files
from edgedd.errors import FormatError
from edgedd.storage.quantize import pack, packed_size, unpack

Shape = tuple[int, int, int]
_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]  # 64 MiB else


@dataclass(frozen=True)
class Levels:
    """Pixels as codes of `bits` bits; 256 levels are the pixels, fewer are each channel's own best (Lloyd 1982)."""

    bits: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.bits} bits, {self.height}x{self.width}"

    def encode(self, images: np.ndarray) -> bytes:
        """uint8 images (n, C, H, W) -> bytes: levels, then codes, deflated where that is smaller."""
        small = picture_files.resized(images.transpose(_CHANNELS_LAST), (self.height, self.width))
        if self.bits == 8:
            return lossless(np.ascontiguousarray(small.transpose(_CHANNELS_FIRST)).tobytes())
        channels = small.shape[3]
        found = [lloyd_levels(np.bincount(small[..., c].ravel(), minlength=256), self.bits) for c in range(channels)]
        nearest = [np.abs(np.arange(256)[:, None] - levels).argmin(1).astype(np.uint8) for levels in found]
        codes = np.stack([nearest[c][small[..., c]] for c in range(channels)], axis=1)
        return np.concatenate(found).tobytes() + lossless(pack(codes, self.bits).tobytes())

    def decode(self, content: bytes, count: int, shape: Shape) -> np.ndarray:
        """The images (n, C, H, W) uint8. Raises FormatError."""
        stored = (count, shape[0], self.height, self.width)
        front = 0 if self.bits == 8 else shape[0] << self.bits
        packed = np.frombuffer(plain(content[front:]), np.uint8)
        if packed.size != packed_size(int(np.prod(stored)), self.bits):
            raise FormatError(f"{packed.size} bytes of pixels for {count} images of {self}: the file is damaged")
        small = unpack(packed, self.bits, stored)
        if front:
            levels = np.frombuffer(content[:front], np.uint8).reshape(shape[0], -1)
            small = np.stack([levels[c][small[:, c]] for c in range(shape[0])], axis=1)
        grown = picture_files.resized(small.transpose(_CHANNELS_LAST), shape[1:])
        return np.ascontiguousarray(grown.transpose(_CHANNELS_FIRST))


def lloyd_levels(counts: np.ndarray, bits: int) -> np.ndarray:
    """2^bits levels (uint8, rising) of least squared error for pixels of which `counts` (256,) has the histogram.

    Lloyd's iteration from equal quantiles: each level the mean of the pixels nearest to it.
    """
    total = np.cumsum(counts) / counts.sum()
    levels = np.searchsorted(total, (np.arange(2**bits) + 0.5) / 2**bits).astype(np.float64)
    pixels = np.arange(256)
    for _ in range(50):
        nearest = np.abs(pixels[:, None] - levels).argmin(1)
        weight = np.bincount(nearest, counts, 2**bits)
        mean = np.bincount(nearest, counts * pixels, 2**bits) / np.maximum(weight, 1)
        levels = np.sort(np.where(weight > 0, mean, levels))
    return np.asarray(np.rint(levels), np.uint8)


def lossless(raw: bytes) -> bytes:
    """A byte that says how, then `raw` as it is, deflated, or by LZMA: the smallest."""
    coded = (raw, zlib.compress(raw, 9, -15), lzma.compress(raw, lzma.FORMAT_RAW, filters=_LZMA))
    return min((bytes([k]) + content for k, content in enumerate(coded)), key=len)


def plain(content: bytes) -> bytes:
    """The inverse of `lossless`. Raises FormatError."""
    try:
        if content[0] == 0:
            return content[1:]
        if content[0] == 1:
            return zlib.decompress(content[1:], -15)
        return lzma.decompress(content[1:], lzma.FORMAT_RAW, filters=_LZMA)
    except (IndexError, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"compressed bytes that cannot be read ({error}): the file is damaged") from error
