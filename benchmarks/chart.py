"""A line chart with bands, as SVG, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 420, 60, 40, 250, 50
COLOURS = ("#0b6e4f", "#5fad56", "#d1495b", "#edae49", "#00798c", "#6b7280", "#8e5ea2", "#a0522d")
TICKS = 5


@dataclass(frozen=True)
class Curve:
    """Points with a band around them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def chart(curves: Sequence[Curve], title: str, x_name: str, y_range: tuple[float, float]) -> str:
    """The curves in one frame, with a legend on the right; values outside `y_range` are drawn at its edge."""
    x_end = max(curve.x[-1] for curve in curves)
    low, high = y_range

    def point(x: float, y: float) -> str:
        share = (min(max(y, low), high) - low) / (high - low)
        across = LEFT + x / x_end * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_frame(title, x_name, x_end, y_range)]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        upper = [point(x, y) for x, y in zip(curve.x, curve.high, strict=True)]
        lower = [point(x, y) for x, y in zip(curve.x, curve.low, strict=True)]
        line = " ".join(point(x, y) for x, y in zip(curve.x, curve.y, strict=True))
        band = " ".join([*upper, *reversed(lower)])
        parts.append(f'<polygon points="{band}" fill="{colour}" opacity="0.18"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_legend(number, curve.name, colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str, x_name: str, x_end: float, y_range: tuple[float, float]) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="13">{escape(title)}</text>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>',
    ]
    for tick in range(TICKS + 1):
        share = tick / TICKS
        y, x = bottom - share * (bottom - TOP), LEFT + share * (right - LEFT)
        value = y_range[0] + share * (y_range[1] - y_range[0])
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{x_end * share:.0f}</text>')
    return "\n".join(parts)


def _legend(number: int, name: str, colour: str) -> str:
    x, y = WIDTH - RIGHT + 14, TOP + 14 + 22 * number
    return (
        f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
        f'<text x="{x + 28}" y="{y + 4}">{escape(name)}</text>'
    )
