"""How likely each code of a synthetic set is: contexts and adaptive counts, the same for writing and for reading.

The codes of one coefficient of all images follow one another, then those of the next coefficient. What is coded is the
category of a magnitude: its context is the magnitude that the neighbours (lower frequencies, the channel before) of
the same image and the images so far lead one to expect. Signs, and which magnitude of a category it is, are stored as
bits. All in whole numbers, so that every machine finds the same contexts.
"""

from collections.abc import Iterator

import numpy as np

from edgedd.errors import FormatError
from edgedd.storage.rans import TOTAL, Coder

FIRST = np.array([0, 1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193])  # magnitude of a category, at least
EXTRA = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])  # bits that say which magnitude of it
MIDDLE = FIRST + (1 << EXTRA) // 2
CATEGORY = np.repeat(np.arange(len(FIRST)), 1 << EXTRA)
ONE = 1024  # expected magnitudes are counted in 1024ths
LIMITS = np.array([(4 << k // 2) * (181 if k % 2 else 128) >> 7 for k in range(31)])
COUNT = 32  # what a symbol seen adds to its count
REFRESH = 32  # frequencies are found anew when a 32nd more symbols are known
PRIOR = 8  # symbols that the first counts stand for
NEIGHBOURS = ((0, 1, 0, 2), (0, 0, 1, 2), (0, 1, 1, 1), (0, 2, 0, 1), (0, 0, 2, 1), (1, 0, 0, 2), (2, 0, 0, 2))
FIRST_GUESS = 4 * ONE


class Counts:
    """How often each category came in each context, as frequencies of `rans.TOTAL`."""

    def __init__(self) -> None:
        middles = [(a + b) // 2 for a, b in zip([0, *LIMITS], [*LIMITS, 2 * LIMITS[-1]], strict=True)]
        self._counts = np.stack([_geometric(int(mean)) for mean in middles])
        self._learned = self._new = 0
        self._refresh()

    def cumulative(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contexts (m,) of expected magnitudes (m,) in 1024ths, and the rows for the coder (m, A + 1)."""
        context = LIMITS.searchsorted(expected, side="right")
        return context, self._cumulative[context]

    def add(self, context: np.ndarray, category: np.ndarray) -> None:
        """Learn from symbols (m,)."""
        np.add.at(self._counts, (context, category), COUNT)
        self._new += len(category)
        if REFRESH * self._new >= self._learned:
            self._refresh()

    def _refresh(self) -> None:
        self._learned, self._new = self._learned + self._new, 0
        categories = self._counts.shape[1]
        frequency = self._counts * (TOTAL - categories) // self._counts.sum(axis=1, keepdims=True) + 1
        frequency[:, 0] += TOTAL - frequency.sum(axis=1)
        self._cumulative = np.zeros((len(frequency), categories + 1), np.int64)
        np.cumsum(frequency, axis=1, out=self._cumulative[:, 1:])


def _geometric(mean: int) -> np.ndarray:
    """Counts of the categories of magnitudes k that come with a probability in proportion to (m / (m + 1))^k."""
    weight, weights = 1 << 20, []
    for _ in range(len(CATEGORY)):
        weights.append(weight)
        weight = weight * mean // (mean + ONE)
    of_category = np.bincount(CATEGORY, weights=weights).astype(np.int64)
    return np.asarray(1 + of_category * (PRIOR * COUNT) // of_category.sum())


def lanes_for(symbols: int) -> int:
    """Lanes of the coder: each costs three bytes, and one for every 8192 symbols keeps decoding to some 10^4 steps."""
    return max(1, min(1024, symbols // 8192))


def code_coefficients(coder: Coder, shape: tuple[int, ...], bits: int, codes: np.ndarray | None) -> np.ndarray:
    """Codes of `shape` (n, ...) uint8: taken from `codes` by an encoder, returned by a decoder.

    The last two axes are frequencies (or rows and columns), the one before them channels. Raises FormatError.
    """
    count, (channels, height, width) = shape[0], (1, 1, 1, *shape[1:])[-3:]
    middle, folded = 1 << (bits - 1), bits == 2
    counts, found = Counts(), np.empty((count, channels, height, width), np.uint8)
    magnitudes = np.zeros((channels, height, width, count), np.uint8)
    known = None if codes is None else codes.reshape(found.shape).astype(np.int64) - middle
    for place in np.ndindex(channels, height, width):
        values = None if known is None else known[:, *place]
        magnitude = _magnitude(values, folded)
        category = None if magnitude is None else CATEGORY[magnitude]
        category = _one_place(coder, counts, *_around(magnitudes, place), category)
        magnitude = FIRST[category] + _extra(coder, category, magnitude)
        signed = (magnitude > 0) | folded
        negative = coder.bits(signed.astype(np.int64), None if values is None else (values < 0).astype(np.int64))
        value = np.where(negative > 0, -magnitude - folded, magnitude) + middle
        if (value < 0).any() or (value >= 1 << bits).any():
            raise FormatError(f"a code does not fit {bits} bits; the file is damaged, copy it again")
        magnitudes[place], found[:, *place] = np.minimum(magnitude, 255), value
    return found.reshape(shape)


def _magnitude(values: np.ndarray | None, folded: bool) -> np.ndarray | None:
    """Folded, -1 has the magnitude 0: the levels of 2 bits lie at -1.5, -0.5, 0.5, 1.5."""
    if values is None:
        return None
    return np.where(values < 0, -values - 1, values) if folded else np.abs(values)


def _extra(coder: Coder, category: np.ndarray, magnitude: np.ndarray | None) -> np.ndarray:
    return coder.bits(EXTRA[category], None if magnitude is None else magnitude - FIRST[category])


def _around(magnitudes: np.ndarray, place: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Weighted magnitudes of the neighbours that were coded before, of each image (n,), and their weight."""
    around, weight = np.zeros(magnitudes.shape[-1], np.int64), 0
    for *back, each in NEIGHBOURS:
        other = tuple(here - by for here, by in zip(place, back, strict=True))
        if min(other) >= 0:
            around += each * magnitudes[other].astype(np.int64)
            weight += each
    return around, weight


def _one_place(
    coder: Coder, counts: Counts, around: np.ndarray, weight: int, category: np.ndarray | None
) -> np.ndarray:
    """Categories (n,) of one coefficient: expected is its mean so far, more where an image's neighbours are larger."""
    count, total = len(around), int(around.sum())
    first = ONE * total * 7 // (8 * weight * count) if weight else FIRST_GUESS
    found, seen = np.empty(count, np.int64), 0
    share, whole = (around + 2) * count, total + 2 * count
    for some in _steps(count, coder.lanes):
        mean = (ONE * seen + PRIOR * first) // (some.start + PRIOR)
        context, cumulative = counts.cumulative(mean * share[some] // whole)
        found[some] = symbols = coder.symbols(cumulative, None if category is None else category[some])
        counts.add(context, symbols)
        seen += int(MIDDLE[symbols].sum())
    return found


def code_labels(coder: Coder, shape: tuple[int, int], top: int, labels: np.ndarray | None) -> np.ndarray:
    """Rows of `shape` (n, K) of numbers that sum to `top`, of images in class-major order: as `code_coefficients`.

    First how much an image's own class lacks of `top`, then the next class and so on round to the last but one, which
    takes the rest. Expected is the mean of the class so far, at first an equal share of what is left.
    """
    counts, (count, classes) = Counts(), shape
    own = np.arange(count) * classes // count
    found, rest = np.zeros((count, classes), np.int64), np.full(count, top)
    for turn in range(classes):
        column = (own + turn) % classes
        known = None if labels is None else labels[np.arange(count), column].astype(np.int64)
        if turn == classes - 1:
            value = rest
        else:
            known = None if known is None else known if turn else top - known
            share = ONE * rest // (classes - turn) if turn else np.full(count, FIRST_GUESS)
            value = _one_column(coder, counts, own, np.stack([share, ONE * rest]), known)
            if (value > rest).any():
                raise FormatError("a label row sums to more than 1; the file is damaged, copy it again")
        found[np.arange(count), column] = value if turn else top - value
        rest = rest - value if turn else value
    return found.astype(np.uint8)


def _one_column(
    coder: Coder, counts: Counts, own: np.ndarray, limits: np.ndarray, known: np.ndarray | None
) -> np.ndarray:
    """Numbers (n,) of one class of each image; `limits` (2, n) in 1024ths: what to expect at first, and at most."""
    category = None if known is None else CATEGORY[known]
    total, seen = (np.zeros(int(own[-1]) + 1, np.int64) for _ in range(2))
    found = np.empty(len(own), np.int64)
    for some in _steps(len(own), coder.lanes):
        classes, (first, most) = own[some], limits[:, some]
        expected = (ONE * total[classes] + PRIOR * first) // (seen[classes] + PRIOR)
        context, cumulative = counts.cumulative(np.minimum(expected, most))
        found[some] = coder.symbols(cumulative, None if category is None else category[some])
        counts.add(context, found[some])
        np.add.at(total, classes, MIDDLE[found[some]])
        np.add.at(seen, classes, 1)
    return np.asarray(FIRST[found] + _extra(coder, found, known))


def _steps(count: int, lanes: int) -> Iterator[slice]:
    for begin in range(0, count, lanes):
        yield slice(begin, min(begin + lanes, count))
