"""Inline SVG as safe markup, and the two scales that the charts need.

Everything that is not :class:`markupsafe.Markup` is escaped, so a name that a guest chose can be
drawn.  Numbers are rounded to a tenth of a pixel, which keeps the page small and its bytes the same.
Colours are classes of the page's style sheet: a picture follows dark, light and print by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Attribute = str | int | float | None
Point = tuple[float, float]


def number(value: float) -> str:
    """Write a coordinate: at most one decimal, no ``-0``."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """Build one element; ``class_`` means ``class``, other underscores in names are hyphens."""
    parts = [Markup("<{}").format(name)]
    for key, value in attributes.items():
        if value is None:
            continue
        shown = number(value) if isinstance(value, int | float) else value
        parts.append(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), shown))
    if not children:
        return Markup("").join([*parts, Markup("/>")])
    return Markup("").join([*parts, Markup(">"), *map(escape, children), Markup("</{}>").format(name)])


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Write words at a point: ``kind`` is a class, ``anchor`` is ``start``, ``middle`` or ``end``."""
    return tag(
        "text", words, x=x, y=y, class_=kind or None, text_anchor=None if anchor == "start" else anchor
    )


def line(start: Point, end: Point, kind: str) -> Markup:
    """Draw a straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=kind)


def polyline(points: Iterable[Point], kind: str) -> Markup:
    """Draw a line through points."""
    return tag("polyline", points=" ".join(f"{number(x)},{number(y)}" for x, y in points), class_=kind)


def picture(width: float, height: float, title: str, parts: Sequence[str]) -> Markup:
    """Close a drawing; ``title`` is what a screen reader says of it."""
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=title,
    )


@dataclass(frozen=True, slots=True)
class Linear:
    """Maps values in ``low..high`` to pixels in ``start..end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the pixel of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Logarithmic:
    """Maps positive values in ``low..high`` to pixels, one decade after the other."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the pixel of a value; what lies below the scale is drawn at its foot."""
        span = math.log10(self.high / self.low) or 1.0
        return self.start + math.log10(max(value, self.low) / self.low) / span * (self.end - self.start)

    def decades(self) -> list[float]:
        """List the powers of ten on the scale."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**power for power in range(first, last + 1)]


def ticks(high: float, about: int = 4) -> list[float]:
    """Choose round values 0, step, 2 step, ... that reach at least ``high``."""
    if high <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(high / about))
    step = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power * about >= high * 0.999)
    return [index * step for index in range(math.ceil(high / step - 1e-6) + 1)]


def short(value: float) -> str:
    """Write a number for an axis: thousands as k, millions as M, no needless decimals."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
