"""A comparison in words: the rows that terminal and page lay out side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from blkproof.analysis.report.compare import Comparison, Spread, broken, worst
from blkproof.analysis.report.model import OUTCOMES, Run
from blkproof.analysis.report.view import MARKS, WORDS, ratio

SHARES: Final = frozenset({"indirect_share", "hit_share"})
COUNTS: Final = frozenset({"requests"})


class Row(NamedTuple):
    """One line; ``differs`` is None where the rounds are too few to tell."""

    name: str
    without: str
    own: str
    differs: bool | None


def sides(pair: Comparison) -> list[Row]:
    """Lay out a comparison: verdicts, broken rules, then the figures."""
    rows = [
        Row(
            "verdict",
            _verdicts(pair.without),
            _verdicts(pair.own),
            worst(pair.without) != worst(pair.own),
        ),
        Row("broken rules", _broken(pair.without), _broken(pair.own), bool(pair.new or pair.gone)),
    ]
    return rows + [
        Row(figure.name, _spread(figure.key, figure.without), _spread(figure.key, figure.own), figure.differs)
        for figure in pair.figures
    ]


def _verdicts(runs: Sequence[Run]) -> str:
    count = Counter(run.outcome for run in runs)
    return ", ".join(
        f"{MARKS[outcome]} {WORDS[outcome]}" + (f" ×{count[outcome]}" if len(runs) > 1 else "")  # noqa: RUF001
        for outcome in OUTCOMES
        if count[outcome]
    )


def _broken(runs: Sequence[Run]) -> str:
    rules = broken(runs)
    return ", ".join(rules) if rules else "none"


def _spread(key: str, spread: Spread) -> str:
    """Write the middle of a figure, and its range where it has one."""
    low, middle, high = (_number(key, value) for value in (spread.low, spread.middle, spread.high))
    unit = " %" if key in SHARES and spread.middle is not None else ""
    return middle + unit if low == high else f"{middle}{unit} ({low} to {high})"


def _number(key: str, value: float | None) -> str:
    if value is None:
        return "—"
    if key in COUNTS:
        return f"{value:,.0f}"
    return f"{100 * value:.1f}" if key in SHARES else ratio(value)
