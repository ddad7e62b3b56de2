"""What the kernels said of trouble with grants and rings, tied to the grants that they mean.

A message names a grant at most, and often not even that: who gave it, to which disk, for which request, and
whether the backend still maps it, only the events around it tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.traces.errors import shown
from blkproof.traces.events import Event


class _Trouble(NamedTuple):
    """A message by its words, the rule that it is about, and whether it may be printed in good order.

    ``near`` are events of the same thread of which the last before it names the grant.
    """

    words: re.Pattern[str]
    rule: str
    harmless: bool = False
    near: tuple[str, ...] = ()


_TROUBLES: Final = tuple(
    _Trouble(re.compile(words), *rest)
    for words, *rest in (
        (r"deferring g\.e\. (?P<hex>0x[0-9a-f]{1,8})", "R49", True),
        (r"g\.e\. (?P<hex>0x[0-9a-f]{1,8}) still pending", "R53", True),
        (r"freeing g\.e\. (?P<hex>0x[0-9a-f]{1,8})", "R49", True),
        (r"leaking g\.e\. (?P<hex>0x[0-9a-f]{1,8})", "R53"),
        (r"g\.e\. (?P<hex>0x[0-9a-f]{1,8}) still in use", "R48"),
        (r"backed has not unmapped grant: (?P<number>[0-9]{1,10})", "R41"),
        (r"requesting a grant already in use", "R47", False, ("be_get",)),
        (r"add a gref that's already in the tree", "R42", False, ("be_add",)),
        (r"freeing a grant already unused", "R43", False, ("be_put",)),
        (r"purge is still busy", "R45", True),
        (r"bogus ring requests", "R19"),
        (r"illegal number of responses", "R20"),
        (r"response has incorrect id|response references no pending request|couldn't be recycled", "R21"),
        (r"response has wrong operation", "R22"),
        (r"access denied: DISCARD", "R31"),
    )
)


SHOWN: Final = 20
"""Messages of one kind and kernel whose grants are looked up; floods of them are counted."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of trouble: the rule that it is about, its event, the grant meant, and what is known of that.

    ``harmless`` tells that it may be printed in good order, ``more`` counts those of its kind not looked up.
    """

    rule: str
    event: Event
    gref: int | None
    known: tuple[str, ...]
    harmless: bool
    more: int = 0

    @property
    def text(self) -> str:
        """The message and what is known, in one line."""
        said = f"{self.event.source}'s kernel says {shown(self.event.text.strip())} ({self.rule})"
        more = f" (and {self.more} more of this kind)" if self.more else ""
        return ": ".join([said, "; ".join(self.known)]) + more if self.known else said + more


def told(run: History) -> tuple[Message, ...]:
    """Return the messages of trouble in the order of time, of each kind and kernel the first ``SHOWN``."""
    if not run.table.count("message"):
        return ()
    found: list[Message] = []
    seen: Counter[tuple[str, re.Pattern[str]]] = Counter()
    for event in run.table.rows(["message"]):
        trouble = next((trouble for trouble in _TROUBLES if trouble.words.search(event.text)), None)
        if trouble is None:
            continue
        kind = event.source, trouble.words
        seen[kind] += 1
        if seen[kind] <= SHOWN:
            gref = _gref(run, event, trouble)
            known = tuple(_known(run, event, gref)) if gref is not None else ()
            more = _more(run, *kind) if seen[kind] == SHOWN else 0
            found.append(Message(trouble.rule, event, gref, known, trouble.harmless, more))
    return tuple(found)


def _more(run: History, source: str, words: re.Pattern[str]) -> int:
    same = (event for event in run.table.rows(["message"], source) if words.search(event.text))
    return sum(1 for _ in same) - SHOWN


def unexplained(messages: Iterable[Message], rules: set[str]) -> tuple[str, ...]:
    """Return the messages that no finding of ``rules`` explains: a kernel saw what the events do not show."""
    return tuple(m.text for m in messages if not m.harmless and m.rule not in rules)


def _gref(run: History, event: Event, trouble: _Trouble) -> int | None:
    match = trouble.words.search(event.text)
    named = match.groupdict() if match is not None else {}
    if named.get("hex"):
        return int(named["hex"], 16)
    if named.get("number"):
        return int(named["number"])
    last = None
    for near in run.table.rows(trouble.near, event.source) if trouble.near else ():
        if near.tsc > event.tsc:
            break
        if near.pid == event.pid:
            last = near
    return None if last is None else int(last.gref)


def _known(run: History, event: Event, gref: int) -> Iterator[str]:
    """Say what the events tell of a grant at the time of a message."""
    yield f"grant {gref}"
    source = event.source if event.source != BACKEND else None
    grants = [g for g in (*run.grants, *run.ring_pages) if g.event.ref == gref and g.event.tsc <= event.tsc]
    given = [g for g in grants if source in (None, g.event.source)]
    if given:
        last = given[-1].event
        yield f"given to domain {last.dom} at tsc {last.tsc} by {last.source}"
    user = _user(run, event, gref, source)
    if user is not None:
        yield user
    held = [m for m in run.mappings if m.op.gref == gref and m.event.tsc <= event.tsc]
    if held:
        last_map = held[-1]
        gone = last_map.unmapped is not None and last_map.unmapped.tsc <= event.tsc
        where = "kept in the backend's tree" if last_map.entry is not None else "mapped for one request"
        state = "unmapped since" if gone else "still mapped"
        yield f"{where} as handle {last_map.op.handle} since tsc {last_map.event.tsc}, {state}"
    elif not given:
        yield "no disk of this recording used it"


def _user(run: History, event: Event, gref: int, source: str | None) -> str | None:
    """Name the last request before the message that used the grant."""
    last = None
    for ring in run.rings:
        if source is not None and ring.front is not None and ring.front.source != source:
            continue
        for request in ring.requests:
            back = request.back
            if back is not None and back.taken.tsc <= event.tsc and gref in (back.grefs or ()):
                last = ring, back
    if last is None:
        return None
    ring, back = last
    answered = back.response is not None and back.response.tsc <= event.tsc
    return f"last used by request id {back.id} of device {ring.device.vdev}, " + (
        "which is answered" if answered else "which is not answered"
    )
