"""One clock: the check that all recorders counted the same ticks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from blkproof.traces.errors import ClockError
from blkproof.traces.stream import Stream


def check_overlap(streams: Sequence[Stream], path: Path) -> None:
    """Raise ClockError when two sources recorded at quite different times.

    All recorders run between arming and disarming.  Clocks that differ do so by the time since the last boot
    or more; so a gap longer than either recording means that they are not one clock.
    """
    spans: dict[str, tuple[int, int]] = {}
    for stream in streams:
        if len(stream.tsc):
            begin, end = int(stream.tsc.min()), int(stream.tsc.max())
            old = spans.get(stream.source, (begin, end))
            spans[stream.source] = (min(old[0], begin), max(old[1], end))
    for (one, a), (other, b) in combinations(spans.items(), 2):
        gap = max(a[0], b[0]) - min(a[1], b[1])
        if gap > max(a[1] - a[0], b[1] - b[0]):
            raise ClockError(
                path,
                expected="one clock for all recorders",
                got=f"records of {one} at {a[0]} to {a[1]} and of {other} at {b[0]} to {b[1]} ticks",
                advice="give the guest the native TSC (tsc_mode) and record again",
            )
