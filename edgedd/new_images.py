"""New labelled images for a student that has been trained: a folder of class folders, or an .npz file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgedd.data_files import image_files, read_npz, subfolders
from edgedd.errors import DataError
from edgedd.prediction import read_images

Chunk = tuple[np.ndarray, list[str]]


def new_images(path: Path, shape: tuple[int, int, int], classes: Sequence[str]) -> Iterator[Chunk]:
    """Images uint8 (b, C, H, W) and the name of the class of each, a file of a folder or a class of an .npz at a time.

    In a folder, each class has a folder of its own, called by its name; pictures are resized to `shape` (C, H, W), as
    `predict` does, and .npy files hold uint8 images. Of an .npz the training part is taken; where it names no classes,
    its labels number `classes`.

    Raises:
        DataError: what is missing, damaged, or of another size.
        MissingExtra: Pillow is needed to read pictures and is not installed.
    """
    if path.is_dir():
        names = subfolders(path)
        if not names:
            raise DataError(f"{path} has no class folders, wanted one for each class, called by its name")
        for name in names:
            for file in image_files(path / name):
                images = read_images(file, shape)
                yield images, [name] * len(images)
        return
    if not path.exists():
        raise DataError(f"{path} does not exist, wanted a folder of class folders, or an .npz file")
    yield from _of_npz(path, classes)


def _of_npz(path: Path, classes: Sequence[str]) -> Iterator[Chunk]:
    parts = read_npz(path)
    images, labels, names = parts["train_images"], np.asarray(parts["train_labels"]), tuple(parts["classes"])
    if names == tuple(map(str, range(len(names)))) and not set(names) <= set(classes):
        names = tuple(classes)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        wanted = f"wanted a whole number for each of {len(images)} images"
        raise DataError(f"{path}: train_labels are {labels.dtype} {labels.shape}, {wanted}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
        raise DataError(
            f"{path}: a label is {labels.max()}, and there are {len(names)} classes: name the new ones in `classes`"
        )
    for label in np.unique(labels):
        chosen = images[labels == label]
        yield chosen, [names[int(label)]] * len(chosen)
