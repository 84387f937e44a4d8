"""JPEG and WebP files of small pictures, and the part of each that differs between pictures of one size and quality.

A JPEG file (ITU-T T.81) is markers with tables, then a scan; Pillow's tables depend on size and quality alone, so that
they are counted once and each picture is its scan. A WebP file (RFC 9649) is a RIFF chunk around a VP8 frame (RFC
6386), of which the chunk headers, start code and size are the same for all. Letters: c 1 or 3 channels.
"""

import io
from typing import Any

import numpy as np

from edgedd.errors import FormatError, MissingExtra

JPEG_END = b"\xff\xd9"
_SCAN = b"\xff\xda"


def file_of(codec: str, quality: int, picture: np.ndarray, *, own_tables: bool = False, halved: bool = False) -> bytes:
    """The file of a picture (h, w, c) uint8.

    JPEG: `own_tables` fits the Huffman tables to the picture; `halved` stores colours at half the size, as WebP does.
    """
    stream = io.BytesIO()
    if codec == "webp":
        pillow(picture).save(stream, "WEBP", quality=quality, method=6)
        return stream.getvalue()
    colours = {"subsampling": "4:2:0" if halved else "4:4:4"} if picture.shape[2] == 3 else {}
    pillow(picture).save(stream, "JPEG", quality=quality, optimize=own_tables, **colours)
    return stream.getvalue()


def picture_of(file: bytes, channels: int) -> np.ndarray:
    """The picture (h, w, c) uint8 in a file. Raises FormatError."""
    try:
        with _pillow().open(io.BytesIO(file), formats=("JPEG", "WEBP")) as opened:
            picture = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FormatError(f"a coded picture cannot be read ({error}): the file is damaged, copy it again") from error
    return picture.reshape(*picture.shape[:2], channels)


def split(codec: str, file: bytes) -> tuple[bytes, bytes]:
    """What is the same for all pictures of a size and quality, and the rest; `joined` puts them together."""
    if codec == "webp":
        data = file[20 : 20 + int.from_bytes(file[16:20], "little")]
        return data[3:10], data[:3] + data[10:]  # start code and size; frame tag and partitions
    start = file.index(_SCAN)
    start += 2 + int.from_bytes(file[start + 2 : start + 4], "big")
    return file[:start], file[start : -len(JPEG_END)]


def joined(codec: str, shared: bytes, own: bytes) -> bytes:
    """The inverse of `split`: an ordinary file."""
    if codec == "jpeg":
        return shared + own + JPEG_END
    data = own[:3] + shared + own[3:]
    chunk = b"WEBPVP8 " + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)
    return b"RIFF" + len(chunk).to_bytes(4, "little") + chunk


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 images (n, h, w, c) at another size: Lanczos down, bicubic up."""
    height, width = images.shape[1:3]
    if size == (height, width):
        return images
    filters = _pillow().Resampling
    way = filters.LANCZOS if size[0] <= height else filters.BICUBIC
    made = [np.asarray(pillow(image).resize(size[::-1], way)) for image in images]
    return np.stack(made).reshape(len(images), *size, images.shape[3])


def pillow(picture: np.ndarray) -> Any:
    """(h, w, c) uint8 -> Pillow's image."""
    return _pillow().fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "coding real images", "decode") from error
    return Image
