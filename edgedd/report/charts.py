"""Numbers as places in a picture of WIDTH x HEIGHT: what templates/charts.html draws as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
MOST_POINTS, LINE = 240, 14
Point = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A named point.

    Attributes:
        x, y: its place.
        spread: half the height of its bar.
        name_y: where its name stands, apart from the other names.
        kind: a class of the style sheet.
    """

    x: float
    y: float
    spread: float
    name_y: float
    name: str
    kind: str


@dataclass(frozen=True)
class Chart:
    """A line through `line` (an SVG path) and `marks`; ticks are (place, text)."""

    title: str
    x_title: str
    y_title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    line: str = ""
    marks: list[Mark] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` along `begin`..`end`, in logarithms where asked."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, rounded to a tenth."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return round(self.begin + (self.end - self.begin) * (value - low) / ((high - low) or 1), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """At most about five round values."""
        values = _round_logarithms(self.low, self.high) if self.logarithmic else _round_steps(self.low, self.high)
        return [(self.place(value), spoken(value)) for value in values]


def line_chart(title: str, points: Sequence[Point], x_title: str, y_title: str, *, fraction: bool = False) -> Chart:
    """A line over x from 0; of many points the means of neighbours. `fraction`: y is one, its axis in per cent."""
    across = Axis(0, max(x for x, _ in points), LEFT, WIDTH - RIGHT)
    points = _thinned(points)
    xs, ys = [x for x, _ in points], [100 * y if fraction else y for _, y in points]
    up = Axis(*_around(ys, 0, 100 if fraction else math.inf), HEIGHT - BOTTOM, TOP)
    places = [f"{across.place(x)} {up.place(y)}" for x, y in zip(xs, ys, strict=True)]
    return Chart(title, x_title, y_title, across.ticks(), up.ticks(), "M" + " L".join(places))


def bytes_chart(title: str, found: Sequence[tuple[float, float, float, str, str]]) -> Chart:
    """Accuracy (fraction, with its spread) against bytes, in logarithms; each with a name and a kind."""
    sizes, heights = [size for size, *_ in found], [100 * row[1] for row in found]
    across = Axis(min(sizes) / 1.4, max(sizes) * 1.4, LEFT, WIDTH - RIGHT, logarithmic=True)
    spreads = [100 * row[2] for row in found]
    ends = [y + s for y, s in zip(heights, spreads, strict=True)] + [
        y - s for y, s in zip(heights, spreads, strict=True)
    ]
    up = Axis(*_around(ends, 0, 100), HEIGHT - BOTTOM, TOP)
    unit = (HEIGHT - BOTTOM - TOP) / (up.high - up.low)
    names = _apart([up.place(y) for y in heights])
    marks = [
        Mark(across.place(size), up.place(y), round(s * unit, 1), name_y, name, kind)
        for (size, _, _, name, kind), y, s, name_y in zip(found, heights, spreads, names, strict=True)
    ]
    return Chart(title, "bytes of the file", "%", across.ticks(), up.ticks(), marks=marks)


def _apart(places: Sequence[float]) -> list[float]:
    """The places, moved so that lines of text there do not lie upon each other; down first, then up from the bottom."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    moved, last = list(places), float("-inf")
    for k in order:
        last = moved[k] = max(moved[k], last + LINE)
    last = HEIGHT - BOTTOM + LINE
    for k in reversed(order):
        last = moved[k] = min(moved[k], last - LINE)
    return moved


def spoken(value: float) -> str:
    """7840 -> 7,840; 0.25 -> 0.25."""
    return f"{value:,.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.2g}"


def _around(values: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """An interval with some air about the values, within `least` and `most` where they are."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 1.0
    return max(low - air, min(least, low)), min(high + air, max(most, high))


def _round_steps(low: float, high: float) -> list[float]:
    size = 10.0 ** math.floor(math.log10((high - low or 1.0) / 4))
    step = next(size * m for m in (1, 2, 5, 10) if (high - low) / (size * m) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, first + 7) if k * step <= high + 1e-9 * step]


def _round_logarithms(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
        if len(values) <= 6:
            return values if len(values) > 1 else _round_steps(low, high)
    return values[:: -(-len(values) // 6)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = -(-len(points) // MOST_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
