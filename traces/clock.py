"""One clock: the check that all recorders counted the same ticks.

Xen gives a guest the native TSC, or one of its own that it emulates; a trace of the latter looks right, but
its times mean nothing beside those of others.  So what must follow from what is looked at: a request is taken
off the ring after it was queued, and its response is seen after it was written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from blkproof.traces.columns import KIND_CODE
from blkproof.traces.errors import ClockError
from blkproof.traces.stream import Stream

_ADVICE = "give the guest the native TSC (tsc_mode) and record again"
_QUEUED = ("fe_queue", "fe_discard")
_TAKEN = ("be_request", "be_discard", "be_other")
_WRITTEN = ("be_response",)
_SEEN = ("fe_response",)
_MAPPED = ("gt_map",)


def check_clock(streams: Sequence[Stream], domids: Mapping[str, int], path: Path) -> None:
    """Raise ClockError when times of the sources can't be of one clock; ``path`` is the capture."""
    _check_overlap(streams, path)
    lossy = {loss.source for stream in streams for loss in stream.losses}
    for guest, domid in domids.items():
        if lossy - {"xen"}:
            continue  # the first event of a kind may be the one that was lost
        front = [stream for stream in streams if stream.source == guest]
        back = [stream for stream in streams if stream.source != guest]
        pairs = (
            ("queued", _first(front, _QUEUED), "taken", _first(back, _TAKEN, domid)),
            ("written", _first(back, _WRITTEN, domid), "seen", _first(front, _SEEN)),
        )
        for cause, begin, effect, end in pairs:
            if begin is not None and end is not None and begin > end:
                raise ClockError(
                    path,
                    expected=f"one clock for {guest} and its backend",
                    got=f"a first request or response {effect} {begin - end} ticks before it was {cause}",
                    advice=_ADVICE,
                )


def _check_overlap(streams: Sequence[Stream], path: Path) -> None:
    """Check that recordings overlap: all run between arming and disarming.

    Xen records long before that, and nothing but maps and unmaps: where the kernels tell of none, its records
    may all be older.
    """
    mapped = _first(streams, _MAPPED) is not None
    spans: dict[str, tuple[int, int]] = {}
    for stream in streams:
        if len(stream.tsc):
            begin, end = int(stream.tsc.min()), int(stream.tsc.max())
            old = spans.get(stream.source, (begin, end))
            spans[stream.source] = (min(old[0], begin), max(old[1], end))
    for (one, a), (other, b) in combinations(spans.items(), 2):
        if "xen" in (one, other) and not mapped:
            continue
        if max(a[0], b[0]) > min(a[1], b[1]):
            raise ClockError(
                path,
                expected="one clock for all recorders",
                got=f"records of {one} at {a[0]} to {a[1]} and of {other} at {b[0]} to {b[1]} ticks",
                advice=_ADVICE,
            )


def _first(streams: Sequence[Stream], names: Collection[str], domid: int | None = None) -> int | None:
    return min(_times(streams, names, domid), default=None)


def _times(streams: Sequence[Stream], names: Collection[str], domid: int | None) -> Iterator[int]:
    for stream in streams:
        for name in names:
            times = stream.tsc[stream.kind == KIND_CODE[name]]
            if domid is not None and len(times):
                times = times[np.asarray(stream.payload[name]["dom"]) == domid]
            if len(times):
                yield int(times.min())
