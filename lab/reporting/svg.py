"""Marks, scales and axes of charts as SVG text, without a plotting library.

Pure functions of finite numbers. Everything lies inside the view box: a value outside its scale is drawn at
the scale's end. Colours are CSS classes, with a light and a dark value in the page's style.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from typing import TypeVar

from markupsafe import Markup

from lab.errors import plain
from lab.stats.format import number

COLOURS = 8
"""Classes `c0` to `c7`."""

SHAPES = 5

MOST_MARKS = 500
"""Number of marks above which a chart draws one in two, in three, and so on."""

Item = TypeVar("Item")

_MOST = 1e100
"""Maximum absolute value drawn, so that no difference overflows."""


@dataclass(frozen=True)
class Scale:
    """Maps values to positions between two points.

    Attributes:
        low, high: Different values at `start` and `end`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of `value`, clamped to the scale."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round values within the scale."""
        step = _round_step((self.high - self.low) / 6)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        if last - first > 20:
            return [self.low, self.high]
        return [place * step for place in range(first, last + 1)]


def scale(values: Iterable[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A scale with room for all finite `values`, and for zero if requested."""
    known = [min(max(value, -_MOST), _MOST) for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low) * 0.1
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = max(abs(high) * 0.1, 0.5)
    keeps_low, keeps_high = zero and low == 0 < high, zero and high == 0 > low
    return Scale(low - (0 if keeps_low else room), high + (0 if keeps_high else room), start, end)


@dataclass(frozen=True)
class Frame:
    """The axes of a chart."""

    width: int
    height: int
    x: Scale
    y: Scale


def sampled(items: Sequence[Item]) -> Sequence[Item]:
    """The items to draw a mark for, evenly spaced if there are too many."""
    return items[:: one_in(len(items))]


def one_in(amount: int) -> int:
    """Of how many items one is drawn."""
    return max(ceil(amount / MOST_MARKS), 1)


def chart(name: str, size: tuple[int, int], title: str, says: str, parts: Iterable[str]) -> Markup:
    """A complete chart.

    Args:
        name: Unique id on the page, of letters and hyphens.
        says: Description for screen readers.
    """
    width, height = size
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{harmless(title)}</title><desc id="{name}-desc">{harmless(says)}</desc>'
    )
    return Markup("\n".join([head, *parts, "</svg>"]))  # trusted: all text was escaped when it was drawn


def harmless(text: str, most: int = 400) -> str:
    """Foreign text, escaped, and cut if too long."""
    shown = plain(" ".join(text[: most + 1].split()))
    return escape(shown if len(shown) <= most else shown[: most - 1] + "…")


def label(x: float, y: float, text: str, *, anchor: str = "start", style: str = "", most: int = 60) -> str:
    """A text label."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{harmless(text, most)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def path(points: Sequence[tuple[float, float]], style: str) -> str:
    """A line through all points."""
    return f'<polyline points="{_points(points)}" class="path {style}"/>'


def area(points: Sequence[tuple[float, float]], style: str) -> str:
    """The area within a line through all points."""
    return f'<polygon points="{_points(points)}" class="area {style}"/>'


def box(x: float, y: float, width: float, height: float, style: str, hint: str = "") -> str:
    """A bar."""
    inside = f"<title>{harmless(hint)}</title>" if hint else ""
    size = f'width="{max(width, 0.0):.1f}" height="{max(height, 0.0):.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{style}">{inside}</rect>'


def mark(x: float, y: float, shape: int, style: str, hint: str = "", size: float = 4.0) -> str:
    """A point; `shape` counts through a circle, a square, a triangle, a diamond and a cross."""
    inside = f"<title>{harmless(hint)}</title>" if hint else ""
    if shape % SHAPES == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="mark {style}">{inside}</circle>'
    around = [(x + size * across, y + size * down) for across, down in _OUTLINES[shape % SHAPES]]
    return f'<polygon points="{_points(around)}" class="mark {style}">{inside}</polygon>'


def axes(frame: Frame, x_name: str, y_name: str, x_ticks: Iterable[float] | None = None) -> str:
    """Grid, tick labels and names of both axes; `x_ticks` replace the round values of the horizontal one."""
    left, right, bottom, top = frame.x.start, frame.x.end, frame.y.start, frame.y.end
    parts = []
    for value in frame.y.ticks:
        parts.append(line(left, frame.y(value), right, frame.y(value), "grid"))
        parts.append(label(left - 6, frame.y(value) + 4, tick_text(value), anchor="end", style="tick"))
    for value in frame.x.ticks if x_ticks is None else x_ticks:
        parts.append(line(frame.x(value), bottom, frame.x(value), bottom + 4, "axis"))
        parts.append(label(frame.x(value), bottom + 17, tick_text(value), anchor="middle", style="tick"))
    parts.append(line(left, bottom, right, bottom, "axis"))
    parts.append(label((left + right) / 2, bottom + 34, x_name, anchor="middle", style="name"))
    parts.append(label(left - 6, top - 10, y_name, style="name"))
    return "\n".join(parts)


def tick_text(value: float) -> str:
    """A value as short text."""
    if value == 0:
        return "0"
    return f"{value:,.6g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.2g}"


def hint(name: str, *figures: tuple[str, float]) -> str:
    """The tooltip of a point."""
    return ", ".join([name, *(f"{what} {number(value)}" for what, value in figures)])


_OUTLINES = {
    1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    2: ((0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    3: ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
    4: (
        *((-1.2, -0.4), (-0.4, -0.4), (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4)),
        *((1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4)),
    ),
}


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _round_step(about: float) -> float:
    """1, 2 or 5 times a power of ten, not below `about`."""
    power = 10.0 ** floor(log10(about)) if about > 0 else 1.0
    return next((power * times for times in (1, 2, 5, 10) if power * times >= about * (1 - 1e-9)), about)
