"""What was not seen: stretches of time in which records of a source may be missing.

An object whose life overlaps such a stretch is undecided: a rule may neither praise nor blame it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from blkproof.traces.stream import LossWindow

NO_FILE: Final = ""
"""The file of a window that stands for a probe that was not armed: no record tells of it."""


class Losses:
    """The loss windows of all sources, asked by source, time and kinds of events."""

    def __init__(self, windows: Iterable[LossWindow] = ()) -> None:
        self._by_source: dict[str, list[LossWindow]] = {}
        for window in sorted(windows, key=lambda window: window.begin_tsc):
            self._by_source.setdefault(window.source, []).append(window)
        self._ends = {source: _latest_ends(windows_of) for source, windows_of in self._by_source.items()}

    def between(
        self, source: str, begin: int, end: int, kinds: frozenset[str] | None = None
    ) -> LossWindow | None:
        """Return a window of ``source`` that overlaps ``begin`` to ``end`` (ticks, both included).

        With ``kinds``, windows in which only events of other kinds were lost don't count.
        """
        windows = self._by_source.get(source)
        if not windows:
            return None
        for number in range(bisect_left(self._ends[source], begin), len(windows)):
            window = windows[number]
            if window.begin_tsc > end:
                return None
            lost_any = window.event is None or kinds is None or window.event in kinds
            if window.end_tsc >= begin and lost_any:
                return window
        return None


def words(window: LossWindow) -> str:
    """Say what a window lost."""
    if window.file == NO_FILE:
        return f"{window.source} did not record {window.event}"
    lost = "records" if window.count is None else f"{window.count} records"
    what = lost if window.event is None else f"{lost} of {window.event}"
    return f"{window.source} lost {what} ({window.file} @{window.offset:#x})"


def _latest_ends(windows: list[LossWindow]) -> list[int]:
    # Windows are sorted by their begin, ends need not be: the running maximum can be searched.
    ends: list[int] = []
    for window in windows:
        ends.append(max(window.end_tsc, ends[-1] if ends else 0))
    return ends
