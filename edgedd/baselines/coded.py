"""Images as JPEG or WebP: the tiles of one file, or each apart with the header shared."""

from dataclasses import dataclass

import numpy as np

from edgedd.baselines import picture_files
from edgedd.baselines.levels import Shape, lossless, plain
from edgedd.errors import FormatError

_MOSAIC, _APART = 0, 1
_MULTIPLE = {"jpeg": 8, "webp": 16}  # blocks are coded whole: tiles begin where blocks do
_WIDEST = 16_383  # of a WebP file


@dataclass(frozen=True)
class Coded:
    """JPEG or WebP ("jpeg", "webp") of a quality, at a size.

    One file of all images needs no lengths and its tables suit all; it is taken unless the images apart are smaller.
    """

    codec: str
    quality: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"quality {self.quality}, {self.height}x{self.width}"

    def encode(self, images: np.ndarray) -> bytes:
        """uint8 images (n, C, H, W) -> bytes."""
        small = picture_files.resized(images.transpose((0, 2, 3, 1)), (self.height, self.width))
        return min(self.mosaic(small), self.apart(small), key=len)

    def mosaic(self, small: np.ndarray) -> bytes:
        """Images (n, h, w, c) as tiles of one file."""
        picture = _tiled(_padded(small, _MULTIPLE[self.codec]))
        return bytes([_MOSAIC]) + self._file(picture, own_tables=True)

    def apart(self, small: np.ndarray) -> bytes:
        """Images (n, h, w, c) each by itself: the shared header once, then lengths, then what is each one's own."""
        files = [self._file(image) for image in small]
        parts = [picture_files.split(self.codec, file) for file in files]
        shared = parts[0][0]
        if any(part[0] != shared for part in parts):
            raise FormatError(f"{self.codec} headers differ between pictures of one size and quality")
        lengths = np.array([len(own) for _, own in parts], "<u2")
        front = bytes([_APART]) + len(shared).to_bytes(2, "little") + shared
        return front + _few_bytes(lengths) + b"".join(own for _, own in parts)

    def decode(self, content: bytes, count: int, shape: Shape) -> np.ndarray:
        """The images (n, C, H, W) uint8. Raises FormatError."""
        if content[0] == _MOSAIC:
            picture = picture_files.picture_of(content[1:], shape[0])
            multiple = _MULTIPLE[self.codec]
            tile = self.height + -self.height % multiple, self.width + -self.width % multiple
            small = _cut(picture, count, tile)[:, : self.height, : self.width]
        else:
            small = np.stack([picture_files.picture_of(file, shape[0]) for file in self._files(content, count)])
        return _grown(small, shape)

    def _file(self, picture: np.ndarray, *, own_tables: bool = False) -> bytes:
        """JPEG halves colours where images are whole blocks of 16 pixels, so that none is shared with a neighbour."""
        halved = self.height % 16 == self.width % 16 == 0
        return picture_files.file_of(self.codec, self.quality, picture, own_tables=own_tables, halved=halved)

    def _files(self, content: bytes, count: int) -> list[bytes]:
        size = int.from_bytes(content[1:3], "little")
        shared, place = content[3 : 3 + size], 3 + size
        lengths, used = _from_few_bytes(content[place:], count)
        ends = place + used + np.cumsum(lengths)
        return [
            picture_files.joined(self.codec, shared, content[end - length : end])
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]


def _grown(small: np.ndarray, shape: Shape) -> np.ndarray:
    return np.ascontiguousarray(picture_files.resized(small, shape[1:]).transpose((0, 3, 1, 2)))


def _padded(images: np.ndarray, multiple: int) -> np.ndarray:
    height, width = images.shape[1:3]
    return np.pad(images, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def _tiled(images: np.ndarray) -> np.ndarray:
    """(n, h, w, c) -> one picture, about square, row by row; the last image fills what is left over."""
    count, height, width, channels = images.shape
    columns = max(1, min(round(count**0.5), _WIDEST // width))
    rows = -(-count // columns)
    images = np.concatenate([images, np.repeat(images[-1:], rows * columns - count, axis=0)])
    tiles = images.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles.reshape(rows * height, columns * width, channels))


def _cut(picture: np.ndarray, count: int, tile: tuple[int, int]) -> np.ndarray:
    """The inverse of `_tiled`. Raises FormatError."""
    rows, columns = picture.shape[0] // tile[0], picture.shape[1] // tile[1]
    if rows * columns < count:
        raise FormatError(f"a picture of {rows * columns} tiles for {count} images: the file is damaged")
    tiles = picture.reshape(rows, tile[0], columns, tile[1], -1).transpose(0, 2, 1, 3, 4)
    return np.asarray(tiles.reshape(rows * columns, *tile, -1)[:count])


def _few_bytes(lengths: np.ndarray) -> bytes:
    """Lengths (n,) as the low bytes of all, then, deflated, the high ones, which are few and alike."""
    return lengths.astype(np.uint8).tobytes() + _sized(lossless((lengths >> 8).astype(np.uint8).tobytes()))


def _from_few_bytes(content: bytes, count: int) -> tuple[np.ndarray, int]:
    """The lengths, and how many bytes they took. Raises FormatError."""
    size = int.from_bytes(content[count : count + 2], "little")
    high = np.frombuffer(plain(content[count + 2 : count + 2 + size]), np.uint8)
    low = np.frombuffer(content[:count], np.uint8)
    if len(low) != count or len(high) != count:
        raise FormatError(f"lengths of {len(low)} pictures, wanted {count}: the file is damaged")
    return low.astype(np.int64) + 256 * high.astype(np.int64), count + 2 + size


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(2, "little") + content
