"""A reader of compact files written from docs/format.md alone, section 8, in plain Python: slow, and easy to follow."""

import json
import zlib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

SMALLEST = [0, 1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193]
EXTRA = [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
MIDDLES = [0, 1, 2, 3, 4, 6, 8, 11, 15, 21, 29, 41, 57, 81, 113, 161, 225]
LIMITS = [4 * 2 ** (j // 2) if j % 2 == 0 else 4 * 2 ** (j // 2) * 181 // 128 for j in range(31)]
AROUND = [
    ((0, 1, 0), 2),
    ((0, 0, 1), 2),
    ((0, 1, 1), 1),
    ((0, 2, 0), 1),
    ((0, 0, 2), 1),
    ((1, 0, 0), 2),
    ((2, 0, 0), 2),
]


class Lanes:
    """States, words and bits."""

    def __init__(self, part: bytes, lanes: int, words: int) -> None:
        self.states = [int.from_bytes(part[4 * j : 4 * j + 4], "little") for j in range(lanes)]
        rest = part[4 * lanes :]
        self.words = [int.from_bytes(rest[2 * j : 2 * j + 2], "little") for j in range(words)][::-1]
        self.bits = [byte >> j & 1 for byte in rest[2 * words :] for j in range(8)][::-1]

    def symbol(self, lane: int, frequencies: list[int]) -> int:
        x, begin = self.states[lane], 0
        s = 0
        while x % 2**14 >= begin + frequencies[s]:
            begin += frequencies[s]
            s += 1
        f = frequencies[s]
        x = f * (x // 2**14) + x % 2**14 - begin
        self.states[lane] = x if x >= 2**16 else x * 2**16 + self.words.pop()
        return s

    def number(self, bits: int) -> int:
        return sum(self.bits.pop() << j for j in range(bits))

    def finished(self) -> bool:
        return all(x == 2**16 for x in self.states) and not self.words and len(self.bits) < 8


class Contexts:
    """Counts and frequencies of 32 contexts."""

    def __init__(self) -> None:
        self.counts = []
        for k in range(32):
            upper = LIMITS[k] if k < 31 else 2 * LIMITS[30]
            mean = ((LIMITS[k - 1] if k else 0) + upper) // 2
            weights = [2**20]
            while len(weights) < 257:
                weights.append(weights[-1] * mean // (mean + 1024))
            sums = [sum(weights[m : m + 2**e]) for m, e in zip(SMALLEST, EXTRA, strict=True)]
            self.counts.append([1 + total * 256 // sum(sums) for total in sums])
        self.learned = self.new = 0
        self.find()

    def find(self) -> None:
        self.learned, self.new, self.frequencies = self.learned + self.new, 0, []
        for counts in self.counts:
            f = [count * (2**14 - 17) // sum(counts) + 1 for count in counts]
            self.frequencies.append([f[0] + 2**14 - sum(f), *f[1:]])

    def place(self, lanes: Lanes, n: int, expected: Callable[[range, list[int]], list[int]]) -> list[int]:
        """Magnitudes of a place; `expected(images of a step, categories of those before)` gives E of those images."""
        found: list[int] = []
        while len(found) < n:
            b = len(found)
            images = range(b, min(b + len(lanes.states), n))
            step = [bisect_right(LIMITS, e) for e in expected(images, found)]
            found += [lanes.symbol(lane, self.frequencies[k]) for lane, k in enumerate(step)]
            for k, category in zip(step, found[b:], strict=True):
                self.counts[k][category] += 32
            self.new += len(step)
            if 32 * self.new >= self.learned:
                self.find()
        return [SMALLEST[category] + lanes.number(EXTRA[category]) for category in found]


def codes(lanes: Lanes, n: int, shape: tuple[int, int, int], bits: int) -> dict[tuple[int, int, int], list[int]]:
    """By place (c, p, q): the codes of all images."""
    contexts, magnitudes, result = Contexts(), {}, {}
    for c in range(shape[0]):
        for p in range(shape[1]):
            for q in range(shape[2]):
                near = [((c - d, p - y, q - x), weight) for (d, y, x), weight in AROUND]
                near = [(place, weight) for place, weight in near if place in magnitudes]
                around = [sum(weight * min(magnitudes[place][i], 255) for place, weight in near) for i in range(n)]
                total, v = sum(around), sum(weight for _, weight in near)

                def expected(images: range, found: list[int], around=around, total=total, v=v) -> list[int]:
                    first = 1024 * total * 7 // (8 * v * n) if v else 4096
                    mean = (1024 * sum(MIDDLES[k] for k in found) + 8 * first) // (images[0] + 8)
                    return [mean * (around[i] + 2) * n // (total + 2 * n) for i in images]

                m = contexts.place(lanes, n, expected)
                negative = [bool(lanes.number(1)) if each or bits == 2 else False for each in m]
                magnitudes[c, p, q], lower = m, 1 if bits == 2 else 0
                half = 2 ** (bits - 1)
                result[c, p, q] = [half - lower - a if s else half + a for a, s in zip(m, negative, strict=True)]
    return result


def labels(lanes: Lanes, n: int, num_classes: int, t: int) -> list[list[int]]:
    """Rows of labels divided by their step."""
    contexts, rows, left = Contexts(), [[0] * num_classes for _ in range(n)], [t] * n
    own = [i * num_classes // n for i in range(n)]
    for j in range(num_classes - 1):

        def expected(images: range, found: list[int], j=j) -> list[int]:
            result = []
            for i in images:
                begin = own.index(own[i])  # class-major: the images of the class that came before
                mine = [MIDDLES[k] for k in found[begin:]]
                first = 1024 * left[i] // (num_classes - j) if j else 4096
                result.append(min((1024 * sum(mine) + 8 * first) // (len(mine) + 8), 1024 * left[i]))
            return result

        for i, m in enumerate(contexts.place(lanes, n, expected)):
            rows[i][(own[i] + j) % num_classes] = m if j else t - m
            left[i] = left[i] - m if j else m
    for i in range(n):
        rows[i][(own[i] + num_classes - 1) % num_classes] = left[i]
    return rows


def read(content: bytes, dictionary: bytes, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Metadata, float bytes, codes by place of the one tensor of codes, of `shape` (C', P, Q) an image, and labels."""
    assert content[:4] == b"edd\x03"
    stream = zlib.decompressobj(-15, dictionary)
    front = stream.decompress(content[4:])
    text, rest = front.split(b"\0", 1)
    about = json.loads(text)
    n, words, step = int.from_bytes(rest[:4], "little"), int.from_bytes(rest[4:8], "little"), rest[8]
    num_classes = len(about["classes"])
    symbols = n * num_classes + n * shape[0] * shape[1] * shape[2]
    lanes = Lanes(stream.unused_data, min(n, max(1, min(1024, symbols // 8192))), words)
    found = codes(lanes, n, shape, about["parameterization"]["bits"])
    rows = [[step * each for each in row] for row in labels(lanes, n, num_classes, 255 // step)]
    return {"about": about, "floats": rest[9:], "codes": found, "labels": rows, "finished": lanes.finished()}
