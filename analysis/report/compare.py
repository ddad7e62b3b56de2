"""Runs with a driver of the user's own beside the same runs with the image's: what the driver changes.

Many counts depend on timing, and so differ from run to run with the same drivers (which requests find a
grant that is free, which response needs a notification).  A difference is called one only when it is
larger than what the rounds of each side let expect, so it takes several rounds to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, variance
from typing import Any, Final

from blkproof.analysis.metrics import Metrics
from blkproof.analysis.report.model import OUTCOMES, Run, RunOutcome
from blkproof.analysis.report.view import WORDS

FIGURES: Final = {
    "requests": "requests",
    "segments_per_request": "segments/request",
    "indirect_share": "indirect share",
    "maps_per_request": "maps/request",
    "unmaps_per_request": "unmaps/request",
    "notifications_per_request": "notifications/request",
    "hit_share": "persistent share",
}
"""Figures that are compared, all of them counts or made of counts, and how a reader calls them."""

ERRORS: Final = 5
"""Standard errors between the means of a figure that differs; with 3 rounds, chance does that in 1 of 130
figures (Student's t with 4 degrees of freedom)."""
TIMING: Final[Mapping[str, Callable[[Metrics], tuple[int, int]]]] = {
    "maps_per_request": lambda it: (it.maps, it.requests),
    "unmaps_per_request": lambda it: (it.unmaps, it.requests),
    "notifications_per_request": lambda it: (it.notifications, it.requests),
    "hit_share": lambda it: (it.lookups - it.hits, it.lookups),
}
"""Figures that depend on timing: a count, and what it is a share of.  Such a count varies by its square root
at least, like any number of chance events, also where the rounds happen to be alike: under an emulated clock
they are, and yet the least change of a driver moves them."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure in several runs: the least, the middle and the greatest; None where none was measured."""

    low: float | None
    middle: float | None
    high: float | None

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        """Take the spread of the values that there are."""
        return cls(min(values), median(values), max(values)) if values else cls(None, None, None)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure on both sides; ``differs`` is None where the rounds are too few to tell."""

    key: str
    without: Spread
    own: Spread
    differs: bool | None

    @property
    def name(self) -> str:
        """What a reader calls the figure."""
        return FIGURES[self.key]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of one scenario and settings: ``without`` with the image's drivers, ``own`` with the user's."""

    without: tuple[Run, ...]
    own: tuple[Run, ...]

    @property
    def drivers(self) -> str:
        """Name of the user's drivers."""
        return self.own[0].drivers

    @property
    def settings(self) -> list[str]:
        """The settings that are not at their defaults; all of them where the manifest tells no defaults."""
        run = self.own[0]
        told = run.unusual if run.table("defaults") else run.settings
        return [f"{key} {value}" for key, value in told.items()]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure on both sides."""
        return tuple(_figure(key, self.without, self.own) for key in FIGURES)

    @property
    def new(self) -> tuple[str, ...]:
        """Rules that only the user's drivers break."""
        return tuple(rule for rule in broken(self.own) if rule not in broken(self.without))

    @property
    def gone(self) -> tuple[str, ...]:
        """Rules that only the image's drivers break."""
        return tuple(rule for rule in broken(self.without) if rule not in broken(self.own))

    def sentence(self) -> str:
        """Say in one sentence what the user's drivers do to the verdict."""
        before, after = worst(self.without), worst(self.own)
        if not all(run.carried_out for run in (*self.without, *self.own)):
            return "There is nothing to compare: a run could not be carried out."
        parts = []
        if self.new:
            parts.append(f"{_and(self.new)} broken only with {self.drivers}")
        if self.gone:
            parts.append(f"{_and(self.gone)} broken only without it")
        if both := [rule for rule in broken(self.own) if rule not in self.new]:
            parts.append(f"{_and(both)} broken on both sides")
        if not parts and before == after:
            return f"With {self.drivers} the verdict is the same as without: {WORDS[after]}."
        if not parts:
            return f"With {self.drivers} the verdict is: {WORDS[after]}; without: {WORDS[before]}."
        return "; ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "drivers": self.drivers,
            "captures": {"without": [r.capture for r in self.without], "with": [r.capture for r in self.own]},
            "outcomes": {"without": [r.outcome for r in self.without], "with": [r.outcome for r in self.own]},
            "broken": {"without": list(broken(self.without)), "with": list(broken(self.own))},
            "figures": {
                figure.key: {
                    "without": _plain(figure.without),
                    "with": _plain(figure.own),
                    "differs": figure.differs,
                }
                for figure in self.figures
            },
        }


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Put runs of the same scenario, settings, image and accelerator side by side, in their order."""
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(_setup(run), {}).setdefault(repr(run.table("variants")), []).append(run)
    return [
        Comparison(tuple(sides[_NONE]), tuple(own))
        for sides in groups.values()
        if _NONE in sides
        for variants, own in sides.items()
        if variants != _NONE
    ]


_NONE: Final = repr({})


def broken(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the rules that one of these runs breaks, each once."""
    return tuple(dict.fromkeys(finding.rule for run in runs for finding in run.broken))


def worst(runs: Sequence[Run]) -> RunOutcome:
    """Return the worst outcome of one side."""
    return next(outcome for outcome in OUTCOMES if outcome in {run.outcome for run in runs})


def _setup(run: Run) -> str:
    image = run.table("image").get("digest")
    return repr((run.scenario, sorted(run.settings.items()), image, run.accelerator))


def _figure(key: str, without: Sequence[Run], own: Sequence[Run]) -> Figure:
    before, after = _samples(key, without), _samples(key, own)
    one, other = (Spread.over([value for value, _ in side]) for side in (before, after))
    return Figure(key, one, other, _differs(before, after))


def _samples(key: str, runs: Sequence[Run]) -> list[tuple[float, float]]:
    """Return a figure in each run that has it, with the least variance that it can have."""
    found = []
    for run in runs:
        metrics = run.verdict.metrics
        value = run.verdict.requests if key == "requests" else getattr(metrics, key)
        if value is not None and run.verdict.requests:
            count, whole = TIMING[key](metrics) if key in TIMING else (0, 1)
            found.append((value, count / whole**2))
    return found


def _differs(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> bool | None:
    """Tell whether the means are further apart than the rounds make them by chance."""
    if not before or not after:
        return bool(before) != bool(after)
    apart = abs(_mean(after) - _mean(before))
    if apart == 0:
        return False
    if min(len(before), len(after)) < 2:
        return None
    return apart > ERRORS * math.sqrt(_error(before) + _error(after))


def _mean(side: Sequence[tuple[float, float]]) -> float:
    return mean(value for value, _ in side)


def _error(side: Sequence[tuple[float, float]]) -> float:
    """Return the square of the standard error of a side's mean."""
    return max(variance(value for value, _ in side), mean(least for _, least in side)) / len(side)


def _plain(spread: Spread) -> dict[str, float | None]:
    return {"low": spread.low, "median": spread.middle, "high": spread.high}


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]} are" if len(words) > 1 else f"{words[0]} is"
