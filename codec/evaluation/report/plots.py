"""Curves as inline SVG, whose colours follow those of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from .page import escape

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 42
COLORS = 8
"""Number of classes of colours in page.css: c0, c1, ..."""

Points = Sequence[tuple[float, float]]
SIMILARITIES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
"""Labelled values of an axis of similarities."""


def plot(
    curves: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    colors: Mapping[str, int] | None = None,
    log_x: bool = False,
    similarity: bool = False,
) -> str:
    """Draw curves with a marker at every point, whose values a pointer reveals.

    Args:
        curves: name -> points (x, y), finite; those without points are left out.
        x_label: of the axis.
        y_label: of the axis.
        colors: name -> index of its colour; None: in order.
        log_x: whether x is on a logarithmic axis; it is positive then.
        similarity: whether y is at most 1, and drawn as -10 log10(1 - y).

    Returns:
        An <svg> element; empty without any point.
    """
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    colors = colors or {name: n for n, name in enumerate(curves)}
    xs, ys = zip(*(point for points in curves.values() for point in points), strict=True)
    across = Axis(xs, LEFT, WIDTH - RIGHT, math.log10 if log_x else float)
    up = Axis(ys, HEIGHT - BOTTOM, TOP, _decibels if similarity else float)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)}">']
    for tick in _powers(xs) if log_x else _round_numbers(xs, 6):
        x = across.place(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_text(tick)}</text>')
    for tick in _similarities(ys) if similarity else _round_numbers(ys, 6):
        y = up.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_text(tick)}</text>')
    for name, points in curves.items():
        parts += _curve(name, sorted(points), across, up, f"c{colors[name] % COLORS}")
    middle, side = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 12 {side})"'
    parts.append(f'<text x="12" y="{side}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "\n".join([*parts, "</svg>"])


def legend(colors: Mapping[str, int]) -> str:
    """Return the names of curves, each with its colour."""
    items = []
    for name, number in colors.items():
        color = f"c{number % COLORS}"
        line = f'<line class="curve {color}" x1="1" x2="23" y1="6" y2="6"/>'
        dot = f'<circle class="dot {color}" cx="12" cy="6" r="3.5"/>'
        swatch = f'<svg viewBox="0 0 24 12" aria-hidden="true">{line}{dot}</svg>'
        items.append(f"<li>{swatch}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


class Axis:
    """Places of values along an axis.

    Args:
        values: all that are shown.
        start: place of the least one, in pixels.
        end: place of the greatest one.
        scale: from a value to what is drawn evenly.
    """

    def __init__(
        self, values: Iterable[float], start: float, end: float, scale: Callable[[float], float]
    ) -> None:
        shown = [scale(value) for value in values]
        margin = 0.04 * (max(shown) - min(shown)) or max(0.5, 1e-6 * abs(shown[0]))
        self._low, self._high = min(shown) - margin, max(shown) + margin
        self._start, self._end, self._scale = start, end, scale

    def place(self, value: float) -> float:
        """Return the place of a value, in pixels."""
        share = (self._scale(value) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)


def _curve(name: str, points: Points, across: Axis, up: Axis, color: str) -> list[str]:
    places = [(across.place(x), up.place(y)) for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    parts = [f'<polyline class="curve {color}" points="{path}"/>']
    if len(points) <= 60:
        for (x, y), (left, top) in zip(points, places, strict=True):
            title = f"<title>{escape(name)}: {_text(x)}, {_text(y)}</title>"
            parts.append(f'<circle class="dot {color}" cx="{left}" cy="{top}" r="3">{title}</circle>')
    return parts


def _decibels(similarity: float) -> float:
    return -10 * math.log10(max(1 - similarity, 1e-6))


def _round_numbers(values: Sequence[float], count: int) -> list[float]:
    """List multiples of 1, 2 or 5 times a power of ten between the least and the greatest value."""
    low, high = min(values), max(values)
    if low == high:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(values: Sequence[float]) -> list[float]:
    """List 1, 2 and 5 times powers of ten between the least and the greatest value."""
    low, high = min(values), max(values)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**n for n in exponents for digit in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high] or [low]


def _similarities(values: Sequence[float]) -> list[float]:
    return [tick for tick in SIMILARITIES if min(values) <= tick <= max(values)] or [min(values)]


def _text(value: float) -> str:
    return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.3g}"
