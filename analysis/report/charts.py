"""The charts of the report, drawn small enough to be read on a phone and set side by side on a desk.

Every chart has axes, units and direct labels.  Four of ``WIDTH`` or three
of ``WIDE`` fill a line of the page, which scales them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blkproof.analysis.report import svg
from markupsafe import Markup

WIDTH = 256.0
LEFT, RIGHT = 34.0, WIDTH - 8.0
WIDE = 336.0
WIDE_RIGHT = WIDE - 8.0
LABEL = 26.0
"""Room that a number of three or four digits takes."""
NAME = 44
"""Letters that fit on a line of a chart."""
LINES = 6
"""Lines that one chart can tell apart without colour: ``.l0`` to ``.l5`` of the style sheet."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what it is, how long it is, and the class that says what its colour means."""

    label: str
    value: float | None
    kind: str = "plain"


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantity that jumps: from ``x[i]`` until ``x[i + 1]`` it is ``y[i]``."""

    x: Sequence[float]
    y: Sequence[float]


def bars(title: str, unit: str, rows: Sequence[Bar]) -> Markup:
    """Draw horizontal bars, one a row, with the label above and the value behind each."""
    high = max((row.value or 0.0 for row in rows), default=0.0)
    marks = svg.ticks(high)
    end = RIGHT - 30
    scale = svg.Linear(0, marks[-1], 4, end)
    pitch, top = 33.0, 6.0
    foot = top + pitch * len(rows) + 2
    parts: list[str] = [svg.line((scale(mark), top), (scale(mark), foot), "grid") for mark in marks]
    for index, row in enumerate(rows):
        y = top + pitch * index
        parts.append(svg.text(4, y + 12, shortened(row.label), "name"))
        if row.value is None:
            parts.append(svg.text(4, y + 27, "not measured", "note"))
            continue
        length = max(scale(row.value) - 4, 0.0)
        parts.append(svg.tag("rect", x=4, y=y + 17, width=length, height=11, class_=f"bar {row.kind}"))
        parts.append(svg.text(4 + length + 5, y + 26.5, f"{row.value:.3g}", "value"))
    parts.append(svg.line((4, top), (4, foot), "axis"))
    parts += [svg.text(scale(mark), foot + 13, svg.short(mark), "tick", "middle") for mark in marks[1:]]
    parts.append(svg.text(4, foot + 13, "0", "tick", "middle"))
    parts.append(svg.text(4, foot + 29, unit, "unit"))
    return svg.picture(WIDTH, foot + 35, title, parts)


def shortened(words: str) -> str:
    """Cut what would run out of a chart; the page's tables have it whole."""
    return words if len(words) <= NAME else f"{words[: NAME - 1]}…"


def _thinned(steps: Steps, pixels: int) -> tuple[list[float], list[float]]:
    """Keep, of every column of pixels, the first, lowest, highest and last value: the picture stays true."""
    x, y = np.asarray(steps.x, dtype=float), np.asarray(steps.y, dtype=float)
    if len(x) <= 4 * pixels:
        return x.tolist(), y.tolist()
    column = np.minimum(((x - x[0]) / ((x[-1] - x[0]) or 1.0) * pixels).astype(int), pixels - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    keep: set[int] = set()
    for start, stop in zip(starts, [*starts[1:], len(x)], strict=True):
        part = y[start:stop]
        keep |= {int(start), int(start + part.argmin()), int(start + part.argmax()), int(stop) - 1}
    chosen = sorted(keep)
    return x[chosen].tolist(), y[chosen].tolist()


def _frame(
    height: float, xs: tuple[svg.Linear, Sequence[float]], ys: tuple[svg.Linear, Sequence[float]]
) -> list[str]:
    """Draw the axes of a plot: light lines at the values of y, ticks at those of x."""
    (scale_x, marks_x), (scale_y, marks_y) = xs, ys
    parts: list[str] = []
    for mark in marks_y:
        parts.append(svg.line((LEFT, scale_y(mark)), (RIGHT, scale_y(mark)), "axis" if mark == 0 else "grid"))
        parts.append(svg.text(LEFT - 6, scale_y(mark) + 3.5, svg.short(mark), "tick", "end"))
    for mark in marks_x:
        parts.append(svg.line((scale_x(mark), height), (scale_x(mark), height + 4), "axis"))
        parts.append(svg.text(scale_x(mark), height + 15, svg.short(mark), "tick", "middle"))
    return parts


def steps(title: str, axis: tuple[str, str], data: Steps, *, cap: float | None, cap_name: str) -> Markup:
    """Draw a quantity over time against its cap; a cap far above the data is named, not drawn to scale."""
    top, foot = 20.0, 132.0
    peak = max(data.y, default=0.0)
    far = cap is not None and peak > 0 and cap > 2.5 * peak
    high = (peak if cap is None or far else max(peak, cap)) * 1.06 or 1.0
    end = max(data.x, default=0.0) or 1.0
    scale_y, scale_x = svg.Linear(0, high, foot, top), svg.Linear(0, end, LEFT, RIGHT)
    marks_y = [mark for mark in svg.ticks(high, 3) if mark <= high]
    marks_x = [mark for mark in svg.ticks(end, 4) if mark <= end]
    parts = _frame(foot, (scale_x, marks_x), (scale_y, marks_y))
    parts.append(svg.text(4, 10, f"{axis[1]}, at most {peak:g}", "unit"))
    if cap is not None:
        words = f"{cap_name} {svg.short(cap) if cap >= 10_000 else f'{cap:g}'}"
        if far:
            parts.append(svg.text(RIGHT, 10, f"{words}, far above ↑", "limit", "end"))
        else:
            parts.append(svg.line((LEFT, scale_y(cap)), (RIGHT, scale_y(cap)), "cap"))
            parts.append(svg.text(RIGHT, scale_y(cap) - 4, words, "limit", "end"))
    points = _step_points(data, scale_x, scale_y)
    if points:
        parts.append(svg.polyline([(points[0][0], foot), *points, (points[-1][0], foot)], "line"))
    parts.append(svg.text(RIGHT, foot + 30, axis[0], "unit", "end"))
    return svg.picture(WIDTH, foot + 36, title, parts)


def _step_points(data: Steps, scale_x: svg.Linear, scale_y: svg.Linear) -> list[svg.Point]:
    xs, ys = _thinned(data, int(RIGHT - LEFT) // 2)
    points: list[svg.Point] = []
    for x, y in zip(xs, ys, strict=True):
        if points:
            points.append((scale_x(x), points[-1][1]))
        points.append((scale_x(x), scale_y(y)))
    return points


def histogram(title: str, axis: tuple[str, str], counts: Mapping[int, int]) -> Markup:
    """Draw how often each whole number occurred; the two tallest bars carry their count."""
    top, foot = 24.0, 132.0
    last = max(counts, default=1)
    peak = max(counts.values(), default=0)
    marks_y = svg.ticks(peak, 3)
    scale_y = svg.Linear(0, marks_y[-1], foot, top)
    slots = max(last, 12)
    pitch = (RIGHT - LEFT) / slots
    scale_x = svg.Linear(0.5, slots + 0.5, LEFT, RIGHT)
    every = 2 ** max(math.ceil(math.log2(slots / 8)), 0)
    marks_x = [mark for mark in range(1, slots + 1) if mark == 1 or mark % every == 0]
    if every > 1 and len(marks_x) > 1 and marks_x[1] - 1 < every / 2:
        marks_x = marks_x[1:]
    parts = _frame(foot, (scale_x, marks_x), (scale_y, marks_y))
    parts.append(svg.text(4, 10, axis[1], "unit"))
    first, second = [*sorted(sorted(counts), key=lambda key: -counts[key]), last, last][:2]
    named = {first, second} if abs(scale_x(second) - scale_x(first)) > LABEL else {first}
    for key in sorted(counts):
        x, y = scale_x(key), scale_y(counts[key])
        width = max(pitch * 0.72, 0.8)
        parts.append(
            svg.tag("rect", x=x - width / 2, y=y, width=width, height=max(foot - y, 0.8), class_="bar plain")
        )
        if key in named and counts[key]:
            label = f"{counts[key]}"
            # kept clear of the numbers of the axis on the left, and inside the picture on the right
            left, right = LEFT + LABEL / 2 + 2, RIGHT - 10
            parts.append(svg.text(min(max(x, left), right), y - 4, label, "value", "middle"))
    parts.append(svg.text(RIGHT, foot + 30, axis[0], "unit", "end"))
    return svg.picture(WIDTH, foot + 36, title, parts)


def distribution(
    title: str, unit: str, samples: Sequence[Sequence[float] | Sequence[int]], span: svg.Point
) -> Markup:
    """Draw the share of values that are at most x, one line a run (``.l0`` ...), over decades.

    ``span`` is the lowest and highest value of all charts that stand side by side, so that they compare.
    """
    top, foot = 20.0, 132.0
    low, high = max(span[0], 1.0), max(span[1], span[0] * 10, 10.0)
    scale_x = svg.Logarithmic(low, high, LEFT, WIDE_RIGHT)
    scale_y = svg.Linear(0, 1, foot, top)
    parts: list[str] = []
    for mark, words in ((0.0, "0"), (0.5, "½"), (1.0, "1")):
        parts.append(svg.line((LEFT, scale_y(mark)), (WIDE_RIGHT, scale_y(mark)), "grid" if mark else "axis"))
        parts.append(svg.text(LEFT - 6, scale_y(mark) + 3.5, words, "tick", "end"))
    decades = scale_x.decades()
    for mark in decades[:: 1 + len(decades) // 8]:
        parts.append(svg.line((scale_x(mark), top), (scale_x(mark), foot + 4), "grid"))
        parts.append(svg.text(scale_x(mark), foot + 15, svg.short(mark), "tick", "middle"))
    parts.append(svg.text(4, 10, "share of requests", "unit"))
    for index, values in enumerate(samples[:LINES]):
        if len(values) == 0:
            continue
        ordered = np.sort(np.asarray(values, dtype=float))
        at = np.unique(np.linspace(0, len(ordered) - 1, num=min(len(ordered), 160)).astype(int))
        points = [(scale_x(float(ordered[i])), scale_y((i + 1) / len(ordered))) for i in at.tolist()]
        parts.append(svg.polyline([(points[0][0], foot), *points], f"l{index}"))
    parts.append(svg.text(WIDE_RIGHT, foot + 30, unit, "unit", "end"))
    return svg.picture(WIDE, foot + 36, title, parts)


def line_key(index: int) -> Markup:
    """Draw the sample of a line that names it in a legend."""
    return svg.tag(
        "svg", svg.line((1, 6), (33, 6), f"l{index}"), viewBox="0 0 34 12", class_="key", aria_hidden="true"
    )
