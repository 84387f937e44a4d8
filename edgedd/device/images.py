"""Images and labels that a caller hands over, checked and brought to what the graphs take."""

import numpy as np

from edgedd.errors import DataError

Shape = tuple[int, int, int]


def normalised(images: np.ndarray, shape: Shape, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Images of `shape` (C, H, W), mean and std (C,) in units of [0, 1] -> float32 (b, C, H, W), normalised.

    uint8 images (b, C, H, W), (b, H, W, C), or (b, H, W) when C is 1, become (x / 255 - mean) / std. float32
    images (b, C, H, W) are taken as they are. Raises DataError for any other.
    """
    if images.dtype == np.float32 and images.shape[1:] == shape:
        return images
    images = channels_first(images, shape, "uint8 or normalised float32")
    scale = 1 / (255 * std.astype(np.float32))
    scaled = images * scale[:, None, None] - (mean / std).astype(np.float32)[:, None, None]
    return np.asarray(scaled, np.float32)


def channels_first(images: np.ndarray, shape: Shape, wanted: str = "uint8") -> np.ndarray:
    """uint8 images (b, C, H, W), (b, H, W, C), or (b, H, W) when C is 1 -> (b, C, H, W). Raises DataError."""
    channels, height, width = shape
    if images.dtype == np.uint8:
        if images.shape[1:] == (height, width) and channels == 1:
            images = images[:, None]
        elif images.shape[1:] != shape and images.shape[1:] == (height, width, channels):
            images = images.transpose(0, 3, 1, 2)
        if images.shape[1:] == shape:
            return images
    sides = f"{channels}, {height}, {width}"
    raise DataError(f"images are {images.dtype} {images.shape}, wanted {wanted} (b, {sides}): convert them")


def checked_batch(images: np.ndarray, soft_labels: np.ndarray, shape: Shape, num_classes: int) -> None:
    """Raises DataError unless images are float32 (m, C, H, W) and soft labels (m, K) rows that sum to 1."""
    sides = ", ".join(map(str, shape))
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape:
        raise DataError(
            f"images are {images.dtype} {images.shape}, wanted normalised float32 (m, {sides}): see Student.normalise"
        )
    if soft_labels.shape != (len(images), num_classes):
        wanted = f"({len(images)}, {num_classes}), a row of probabilities an image"
        raise DataError(f"soft labels have the shape {soft_labels.shape}, wanted {wanted}")
    if not np.allclose(soft_labels.sum(axis=1), 1, atol=1e-3):
        raise DataError("a row of soft labels does not sum to 1, wanted probabilities: divide each row by its sum")


def checked_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Row numbers (k,) as int64. Raises DataError for one outside the set of `count` images."""
    rows = np.asarray(rows)
    if rows.size and not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"rows are {rows.dtype}, wanted whole numbers in [0, {count})")
    if rows.ndim != 1 or (rows.size and not (rows.min() >= 0 and rows.max() < count)):
        raise DataError(f"rows of shape {rows.shape} reach outside the set, wanted (k,) numbers in [0, {count})")
    return rows.astype(np.int64)


def checked_labels(labels: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    """Class numbers (b,). Raises DataError unless there is one in [0, K) for each of `count` > 0 images."""
    labels = np.asarray(labels)
    if count == 0:
        raise DataError("no images to evaluate on, wanted at least one")
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype} {labels.shape}, wanted a whole number for each of {count} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"labels reach from {labels.min()} to {labels.max()}, wanted numbers in [0, {num_classes})")
    return labels
