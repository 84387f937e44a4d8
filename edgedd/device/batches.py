"""Which rows of the set, and which new images, a training step takes."""

from collections.abc import Iterator

import numpy as np


def batches(rows: np.ndarray, batch_size: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, bool]]:
    """Rows of each step and whether they end an epoch; what does not fill a batch waits for another epoch."""
    size = min(batch_size, len(rows))
    while True:
        order = rows[generator.permutation(len(rows))]
        for first in range(0, len(rows) - size + 1, size):
            yield order[first : first + size], first + 2 * size > len(rows)
