"""The model of the backend's persistent tree: which grants it keeps mapped, and which of them are in use.

| step of the model | event           | Linux xen-blkback        |
| ----------------- | --------------- | ------------------------ |
| look_up           | be_get          | get_persistent_gnt       |
| add               | be_add_ret      | add_persistent_gnt       |
| put               | be_put          | put_persistent_gnt       |
| scan              | be_purge        | purge_persistent_gnt     |
| resize            | pgc of an event | persistent_gnt_c         |

A purge takes grants that are not in use out of the tree, but no event says which: they only show when a
later look-up misses them, when their handle is unmapped, or when the backend's own count of grants leaves
no choice.  Until then the model calls their state unknown.
"""

from __future__ import annotations

from blkproof.analysis.entities import Entry, Known, Seen
from blkproof.traces.events import Event


class Tree:
    """The grants of one ring's tree, as far as the events tell.

    ``begin`` is the first event of the ring; what was in the tree before is unknown unless it was empty.
    """

    def __init__(self, begin: Event, size: int | None) -> None:
        self._entries: dict[int, Entry] = {}
        self._absent_since: dict[int, int] = {}
        self._suspects: set[int] = set()
        self._surplus = -(size or 0)
        self._begin = begin.tsc
        self._doubt = 0 if size == 0 else begin.tsc + 1
        self.emptying: Event | None = None
        self.drift: Event | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, gref: int) -> Entry | None:
        """Return the entry of a grant, if the model has one."""
        return self._entries.get(gref)

    def seen(self, gref: int) -> Seen:
        """Return what is known of a grant now."""
        entry = self._entries.get(gref)
        if entry is None:
            since = self._absent_since.get(gref, self._begin)
            return Seen(Known.ABSENT if since >= self._doubt else Known.UNKNOWN, gref, since)
        if entry.since.tsc < self._doubt:
            return entry.seen(Known.UNKNOWN)
        return entry.seen(Known.MAYBE if gref in self._suspects else None)

    def found(self, event: Event, entry: Entry) -> None:
        """Take over that a look-up found ``entry``."""
        if entry.gref not in self._entries:
            self._surplus += 1
        self._suspects.discard(entry.gref)
        entry.active = True
        entry.since = event
        self._entries[entry.gref] = entry

    def missed(self, event: Event, gref: int) -> None:
        """Take over that a look-up found nothing: a suspect was purged, everything else stays."""
        if gref in self._suspects or self.seen(gref).known is Known.UNKNOWN:
            self.remove(event, gref)

    def add(self, event: Event, entry: Entry) -> None:
        """Take over that the backend added ``entry``, in use."""
        self._suspects.discard(entry.gref)
        self._entries[entry.gref] = entry
        entry.since = event

    def put(self, event: Event, gref: int) -> Entry | None:
        """Take over that a request gave a grant back; return its entry."""
        entry = self._entries.get(gref)
        if entry is not None:
            entry.active = False
            entry.holder = None
            entry.since = event
        return entry

    def scan(self) -> None:
        """Take over that the backend looked for grants to purge: all that are not in use may go."""
        self._suspects.update(gref for gref, entry in self._entries.items() if not entry.active)

    def may_go(self, gref: int) -> bool:
        """Tell whether a grant may be unmapped now: the tree is being emptied, or a purge took it."""
        return self.emptying is not None or gref in self._suspects

    def remove(self, event: Event, gref: int) -> None:
        """Take over that a grant is not in the tree any more."""
        if self._entries.pop(gref, None) is not None and gref not in self._suspects:
            self._surplus -= 1
        self._suspects.discard(gref)
        self._absent_since[gref] = event.tsc

    def resize(self, event: Event, size: int) -> None:
        """Take over the backend's own count, read by the thread that alone changes it."""
        if size == 0 and self._doubt:
            self._entries.clear()
            self._absent_since.clear()
            self._suspects.clear()
            self._begin, self._doubt, self._surplus = event.tsc, 0, 0
        surplus = len(self._entries) - size
        if surplus == self._surplus:
            self._suspects.clear()
        elif self._surplus == 0 and surplus == len(self._suspects):
            for gref in tuple(self._suspects):
                self.remove(event, gref)
        elif self._surplus or not 0 < surplus < len(self._suspects):
            # Something happened that the events don't tell: from here on nothing old is certain.
            self.drift = self.drift or event
            self._doubt = event.tsc + 1
            self._surplus = surplus
            self._suspects.clear()
