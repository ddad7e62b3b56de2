"""Figures about a run: what was moved, what it cost, and the curves behind the pictures.

Times are in ticks of the common TSC; a figure that the capture can't give is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, Final

STAGES: Final = ("queue", "map", "io", "unmap", "return", "total")
"""Stages of a request's life: frontend queues it - backend takes it - data pages mapped - last bio ends -
response written - frontend takes it; ``total`` is from the first to the last."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One quantity as the three observers counted it; None where one can't see it."""

    what: str
    frontend: int | None = None
    backend: int | None = None
    xen: int | None = None

    @property
    def agree(self) -> bool:
        """Tell whether all who can see it counted the same."""
        return len({count for count in (self.frontend, self.backend, self.xen) if count is not None}) <= 1

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {
            "what": self.what,
            "frontend": self.frontend,
            "backend": self.backend,
            "xen": self.xen,
            "agree": self.agree,
        }


@dataclass(frozen=True, slots=True)
class Interval:
    """What the observers counted from the harness' mark ``name`` to the next, ``ticks`` later."""

    name: str
    ticks: int
    observed: tuple[Observed, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantity that jumps: from ``tsc[i]`` until ``tsc[i + 1]`` it is ``value[i]``."""

    tsc: Sequence[int] = ()
    value: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one run did on its block rings, all rings together.

    ``requests`` were taken off the ring by the backend; ``indirect`` of them were indirect.  ``segments``
    maps a number of segments to the requests that had so many.  ``maps`` and ``unmaps`` are grants that
    the block backend mapped and unmapped, ``lookups`` and ``hits`` those in its persistent tree.
    ``notifications`` were sent by both sides together.  The window is the time of the guest's load, or of
    the whole recording where the guest did not mark it.  ``tree`` is the size of
    the tree, ``tree_cap`` its limit, ``outstanding`` the requests between push and completion, ``nr_ents``
    the size of the ring.  ``stages`` are ticks per request, one line per stage of STAGES.
    """

    requests: int = 0
    reads: int = 0
    writes: int = 0
    flushes: int = 0
    discards: int = 0
    indirect: int = 0
    errors: int = 0
    segments: Mapping[int, int] = field(default_factory=dict)
    maps: int = 0
    unmaps: int = 0
    lookups: int = 0
    hits: int = 0
    notifications: int = 0
    tree_peak: int = 0
    tree_cap: int | None = None
    nr_ents: int | None = None
    window_ticks: int | None = None
    window_seconds: float | None = None
    iops: float | None = None
    stages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    tree: Steps = field(default_factory=Steps)
    outstanding: Steps = field(default_factory=Steps)
    observed: tuple[Observed, ...] = ()
    intervals: tuple[Interval, ...] = ()

    @property
    def segments_per_request(self) -> float | None:
        """Mean number of segments of the requests whose segments are known."""
        known = sum(self.segments.values())
        return sum(count * requests for count, requests in self.segments.items()) / known if known else None

    @property
    def maps_per_request(self) -> float | None:
        """Grants mapped per request."""
        return self._per_request(self.maps)

    @property
    def unmaps_per_request(self) -> float | None:
        """Grants unmapped per request."""
        return self._per_request(self.unmaps)

    @property
    def notifications_per_request(self) -> float | None:
        """Event channel notifications, of both directions, per request."""
        return self._per_request(self.notifications)

    @property
    def indirect_share(self) -> float | None:
        """Share of the requests that were indirect, 0 to 1."""
        return self._per_request(self.indirect)

    @property
    def hit_share(self) -> float | None:
        """Share of the look-ups in the persistent tree that found the grant, 0 to 1; None without any."""
        return self.hits / self.lookups if self.lookups else None

    def _per_request(self, count: int) -> float | None:
        return count / self.requests if self.requests else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data; curves stay out, stages shrink to their medians."""
        curves = {"stages", "tree", "outstanding", "observed", "intervals", "segments"}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in curves}
        shares = (
            "segments_per_request",
            "maps_per_request",
            "unmaps_per_request",
            "notifications_per_request",
            "indirect_share",
            "hit_share",
        )
        return {
            **plain,
            **{name: getattr(self, name) for name in shares},
            "segments": {str(count): requests for count, requests in sorted(self.segments.items())},
            "median_ticks": {stage: median(ticks) for stage, ticks in self.stages.items() if ticks},
            "observed": [o.to_json() for o in self.observed],
            "intervals": [
                {"from": i.name, "ticks": i.ticks, "observed": [o.to_json() for o in i.observed]}
                for i in self.intervals
            ],
        }
