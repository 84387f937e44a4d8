"""Interleaved range asymmetric numeral systems: symbols to 16-bit words and back, many lanes at once in numpy.

Duda 2013, "Asymmetric numeral systems" (arXiv:1311.2540), the range variant; lanes as in Giesen 2014, "Interleaved
entropy coders" (arXiv:1402.3392). A state x of a lane lies in [2^16, 2^32). A symbol with the frequency f of 2^14 and
the sum c of the frequencies before it takes

    encoding: x -> (x div f) 2^14 + x mod f + c         decoding: x -> f (x div 2^14) + x mod 2^14 - c

and moves 16 bits to or from the words when x would leave its range. Integers only: every machine decodes alike.
"""

from typing import Protocol

import numpy as np

from edgedd.errors import FormatError

PRECISION = 14
TOTAL = 1 << PRECISION
LOWEST = 1 << 16


class Coder(Protocol):
    """Either direction, so that a model is written once."""

    lanes: int

    def symbols(self, cumulative: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The next symbols (m,), of the first m lanes; `cumulative` (m, A + 1) int64 rises from 0 to TOTAL."""
        ...

    def bits(self, lengths: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The next whole numbers (m,) of so many bits each, which lie uncoded beside the words."""
        ...


class Encoder:
    """Takes symbols in the order in which they will be decoded; `finish` gives states and words."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self._row = lanes, np.arange(lanes)
        self._taken: list[tuple[np.ndarray, np.ndarray]] = []
        self._bits: list[np.ndarray] = []

    def symbols(self, cumulative: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """Note what encoding needs: it runs backwards."""
        assert known is not None
        count, width = cumulative.shape
        place, flat = width * self._row[:count] + known, cumulative.ravel()
        begin = flat[place]
        self._taken.append((begin, flat[place + 1] - begin))
        return known

    def bits(self, lengths: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """Put the numbers one after the other, their lowest bits first."""
        assert known is not None
        place, bit = _places(lengths)
        self._bits.append((known[place] >> bit & 1).astype(np.uint8))
        return known

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States (lanes,) uint32 and words (w,) uint16, to be read forwards, and the packed bits (b,) uint8."""
        x = np.full(self.lanes, LOWEST, np.int64)
        words: list[np.ndarray] = []
        for begin, frequency in reversed(self._taken):
            state = x[: len(begin)]
            full = state >= frequency << (32 - PRECISION)
            words.append(state[full] & 0xFFFF)
            state = np.where(full, state >> 16, state)
            quotient, remainder = np.divmod(state, frequency)
            x[: len(begin)] = (quotient << PRECISION) + remainder + begin
        flat = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
        bits = np.packbits(np.concatenate([np.zeros(0, np.uint8), *self._bits]), bitorder="little")
        return x.astype(np.uint32), flat.astype(np.uint16), bits


class Decoder:
    """Gives the symbols back. Raises FormatError for states and words that no encoder made."""

    def __init__(self, states: np.ndarray, words: np.ndarray, bits: np.ndarray) -> None:
        self.lanes = states.size
        self._x, self._row = states.astype(np.int64), np.arange(states.size)
        if (self._x < LOWEST).any():
            raise FormatError("an entropy-coded part begins outside its range; the file is damaged, copy it again")
        self._words, self._bits = words, bits
        self._read = self._bits_read = 0

    def symbols(self, cumulative: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Symbols (m,) of the first m lanes."""
        count, width = cumulative.shape
        state = self._x[:count]
        slot = state & (TOTAL - 1)
        found = (cumulative[:, 1:] > slot[:, None]).argmax(axis=1)
        place, flat = width * self._row[:count] + found, cumulative.ravel()
        begin = flat[place]
        state = (flat[place + 1] - begin) * (state >> PRECISION) + slot - begin
        low = (state < LOWEST).nonzero()[0]
        if low.size:
            taken = self._words[self._read : self._read + low.size]
            if taken.size < low.size:
                raise FormatError("an entropy-coded part ends too early; the file is truncated, copy it again")
            self._read += low.size
            state[low] = (state[low] << 16) | taken
        self._x[:count] = state
        return np.asarray(found)

    def bits(self, lengths: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Whole numbers (m,) of so many bits each."""
        place, bit = _places(lengths)
        begin, end = self._bits_read, self._bits_read + place.size
        if end > 8 * self._bits.size:
            raise FormatError("an entropy-coded part ends too early; the file is truncated, copy it again")
        some = np.unpackbits(self._bits[begin // 8 : (end + 7) // 8], bitorder="little")[begin % 8 :][: place.size]
        self._bits_read = end
        values = np.zeros(lengths.size, np.int64)
        np.add.at(values, place, some.astype(np.int64) << bit)
        return values

    def check_end(self) -> None:
        """Raises FormatError unless all was read and every lane is back where encoding began."""
        unread = (self._read, -(-self._bits_read // 8)) != (self._words.size, self._bits.size)
        if unread or (self._x != LOWEST).any():
            raise FormatError("an entropy-coded part does not end where it should; the file is damaged, copy it again")


def _places(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of all bits of numbers (m,) of so many bits: which number, and which bit of it."""
    place = np.repeat(np.arange(lengths.size), lengths)
    return place, np.arange(place.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
