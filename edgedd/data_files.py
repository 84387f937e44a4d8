"""The user's own data: an `.npz` file or a folder of class folders, hostile until checked."""

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from edgedd.data_sources import Parts, parts_of
from edgedd.errors import DataError, MissingExtra
from edgedd.parameterization import MAX_SIDE, MIN_SIDE
from edgedd.storage.set_metadata import MAX_CLASSES
from edgedd.stratified import held_out

MAX_ARRAY_BYTES = 8 * 2**30
MOST_LISTED = 2**16  # bytes of a zip's list of entries, each of which takes many times as much in memory
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_LAYOUT = "train_images, train_labels, test_images, test_labels and, if you like, classes"
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
# what zipfile, numpy and pillow raise on damaged files
DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, SyntaxError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


def read_npz(path: Path) -> Parts:
    """Images uint8 (N, H, W) or (N, H, W, C) and whole-number labels (N,), 0..K-1, for training and test.

    Raises DataError for a file that is damaged, incomplete, of another layout, or that holds pickled objects.
    """
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is not an .npz file, wanted one with {_LAYOUT}: write it with numpy.savez_compressed")
    try:
        _check_listing(path)
        with zipfile.ZipFile(path) as archive:
            _check_headers(path, archive)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in stored.files if name in (*_ARRAYS, "classes")}
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path} is damaged or no .npz file ({_reason(error)}); write or copy it again") from error
    for name in ("train_images", "test_images"):
        arrays[name] = _channels_first(f"{path}: {name}", arrays[name])
    return {**arrays, "classes": _npz_classes(path, arrays)}


def _check_listing(path: Path) -> None:
    """Refuse a zip with a comment, which numpy writes none of, or with a long list of entries, which is read whole."""
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 98, 0))
        tail = file.read()  # with the end of a zip of 64 bits (56), where that is (20), and the end of any zip (22)
    end = tail[-22:]
    if end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise zipfile.BadZipFile("File is not a zip file")
    long = tail[-42:-38] == b"PK\x06\x07"
    listed = int.from_bytes(tail[-58:-50] if long else end[12:16], "little")
    if listed > MOST_LISTED:
        raise DataError(f"{path} lists its arrays in {listed} bytes, wanted {MOST_LISTED} at most: {_LAYOUT}")


def _check_headers(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse missing arrays, pickles and arrays larger than the file holds, before anything is allocated."""
    found = {name.removesuffix(".npy"): name for name in archive.namelist()}
    missing = [name for name in _ARRAYS if name not in found]
    if missing:
        has = ", ".join(sorted(found)) or "nothing"
        raise DataError(f"{path} lacks {', '.join(missing)} and has {has}; wanted {_LAYOUT}")
    for name in {*_ARRAYS, "classes"} & found.keys():
        with archive.open(found[name]) as member:
            version = np.lib.format.read_magic(member)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(member)
            room = archive.getinfo(found[name]).file_size - member.tell()
        if dtype.hasobject:
            raise DataError(
                f"{path}: {name} is a pickled object array, wanted plain numbers: convert it and save again"
            )
        size = math.prod(shape) * max(dtype.itemsize, 1)  # numpy makes one character of texts of none
        if size > min(room, MAX_ARRAY_BYTES):
            raise DataError(
                f"{path}: {name} claims {size} bytes and the file holds {room}, wanted at most {MAX_ARRAY_BYTES}: "
                "the file is damaged or too large, write it again"
            )


def _channels_first(what: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
            raise DataError(f"{what} has NaN pixels or infinite ones, wanted uint8 0..255: clean the data first")
        advice = "convert with (255 * x).round().astype('uint8') if x is in [0, 1], or x.astype('uint8') if in 0..255"
        raise DataError(f"{what} is {images.dtype}, wanted uint8: {advice}")
    if images.ndim not in (3, 4):
        raise DataError(f"{what} has shape {images.shape}, wanted (N, H, W) or (N, H, W, C)")
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise DataError(f"{what} has shape {images.shape}, wanted (N, H, W, C) with 1 or 3 channels C, channels last")
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _npz_classes(path: Path, arrays: dict[str, Any]) -> tuple[str, ...]:
    names, labels = arrays.get("classes"), arrays["train_labels"]
    if names is None:
        whole = np.issubdtype(labels.dtype, np.integer) and labels.size
        count = max(1, int(labels.max()) + 1) if whole else 2
        if count > MAX_CLASSES:
            raise DataError(
                f"{path}: a label is {count - 1}, wanted 0..K-1 with at most {MAX_CLASSES} classes: renumber them"
            )
        return tuple(map(str, range(count)))
    if names.ndim != 1 or names.dtype.kind not in "US" or len(names) > MAX_CLASSES:
        wanted = f"wanted a row of names, one a class, {MAX_CLASSES} at most"
        raise DataError(f"{path}: classes is {names.dtype} {names.shape}, {wanted}")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in names.tolist())


def read_class_folders(path: Path) -> Parts:
    """One folder a class, named after it; `train/` and `test/` above them are used where present.

    Without them a fifth of each class, chosen with seed 0, is the test part. Images are grey if all are, else RGB.
    Raises DataError for an unreadable image, an empty class or images of unequal sizes.
    """
    parts = [path / "train", path / "test"]
    if not all(part.is_dir() for part in parts):
        parts = [path]
    classes = subfolders(parts[0])
    if len(classes) < 2:
        raise DataError(f"{parts[0]} has {len(classes)} class folder(s), wanted two or more, each with its images")
    if len(parts) == 2 and subfolders(parts[1]) != classes:
        odd = ", ".join(sorted(set(classes) ^ set(subfolders(parts[1]))))
        raise DataError(f"{path}: class folders differ between train and test ({odd}), wanted the same in both")
    files = [image_files(part / name) for part in parts for name in classes]
    owner = np.repeat(np.arange(len(files)), [len(group) for group in files])
    images = _decode([file for group in files for file in group])
    labels = owner % len(classes)
    test = owner >= len(classes) if len(parts) == 2 else held_out(labels, 0.2, seed=0)
    return parts_of(images, labels, test, tuple(classes))


def subfolders(folder: Path) -> list[str]:
    """Names of the class folders, sorted."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The files of a class, sorted. Raises DataError when there is none."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise DataError(f"class folder {folder} has no image, wanted one or more: add images or remove the folder")
    return files


def _decode(files: list[Path]) -> np.ndarray:
    """uint8 (N, C, H, W); sizes are read from the files' headers before any pixel is decoded."""
    first = open_image(files[0])[:2]
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in first):
        wanted = f"wanted sides of {MIN_SIDE}..{MAX_SIDE}: resize the images"
        raise DataError(f"{files[0]} is {first[0]}x{first[1]} pixels (width x height), {wanted}")
    grey = True
    for file in files:
        width, height, mode, _ = open_image(file)
        if (width, height) != first:
            sizes = f"{width}x{height} pixels and {files[0]} is {first[0]}x{first[1]}"
            raise DataError(f"{file} is {sizes}, wanted one size: resize the images")
        grey = grey and mode in _GREY
    images = np.empty((len(files), 1 if grey else 3, first[1], first[0]), np.uint8)
    for place, file in zip(images, files, strict=True):
        pixels = open_image(file, "L" if grey else "RGB")[3]
        place[:] = pixels if grey else pixels.transpose(2, 0, 1)
    return images


def open_image(file: Path, mode: str = "") -> tuple[int, int, str, Any]:
    """Width, height and mode of an image and, if a `mode` is asked for, its pixels in that mode."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", "reading images", "decode") from error
    try:
        content = BytesIO(file.read_bytes())  # an open file sets aside all that a damaged picture asks for
        with warnings.catch_warnings(action="ignore"), Image.open(content) as image:
            pixels = None
            if mode:
                deep = image.mode.startswith("I")
                grey = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)) if deep else image
                pixels = np.asarray(grey.convert(mode))
            return *image.size, image.mode, pixels
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read the image {file} (no picture that Pillow knows); replace or remove it") from error
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {file} ({_reason(error)}); replace or remove it") from error


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
