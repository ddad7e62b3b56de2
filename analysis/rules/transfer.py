"""Whether what one side puts on the ring reaches the other: R23 and R24."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, FrontHalf, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import front_unseen, unseen
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import PUSHED_IN, SEGMENTS_IN, Event


@rule(
    id="R23",
    level="MUST",
    side="both",
    source="ring.h RING_PUSH_REQUESTS, RING_COPY_REQUEST; Linux blkif_queue_rw_req, __do_block_io_op",
    obligation="The backend reads of each request what the frontend wrote: it is written before the index "
    "that announces it, and read after.",
    needs={"fe_queue", "fe_push", "be_request"},
    also={
        *PUSHED_IN,
        *SEGMENTS_IN,
        *("be_map", "be_map_ret", "be_get", "gt_map", "be_response"),
    },
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, nr=200), play.io(wire.FLUSH, nr=0)),
    breaks=lambda play: play.io(wire.WRITE, fe_push={"handle": 7}),
)
def arrives_whole(run: History, judge: Judge) -> None:
    """Compare both sides of each request, and for an indirect one what is in its pages."""
    for ring in run.rings:
        for request in ring.requests:
            back, front = request.back, request.front
            if back is None or not back.has_data:
                continue
            if front is None or front.push is None:
                judge.undecided(front_unseen(run, judge, ring, back))
                continue
            differing = _differing(front.push, back.taken)
            if differing is None and back.indirect:
                if front.segments is None or back.segments is None or back.grefs is None:
                    gap = judge.gap(run.guest(ring), front.queue.tsc, back.taken.tsc)
                    judge.undecided(gap or unseen(run, judge, back))
                    continue
                differing = _in_pages(front.segments, back)
            if differing is None:
                judge.holds()
            elif gap := judge.gap(run.guest(ring), run.begin, back.taken.tsc):
                # What stands at the same index may belong to another life of the ring.
                judge.undecided(gap)
            else:
                _not_as_pushed(judge, front, back, differing)


class _Difference(NamedTuple):
    """A field, and what the frontend wrote and the backend read there."""

    name: str
    written: object
    read: object


def _differing(push: Event, taken: Event) -> _Difference | None:
    """Return the first field that differs."""
    if push.op == wire.INDIRECT:
        fields = ["op", "sector", "indirect_op", "indirect_nr", "indirect_handle"]
    else:
        fields = ["op", "sector", "nr", "handle"]
    for name in fields:
        if (one := getattr(push, name)) != (other := getattr(taken, name)):
            return _Difference(name, one, other)
    if push.op == wire.INDIRECT:
        pages = wire.indirect_pages(push.indirect_nr)
        one, other = tuple(push.indirect_gref[:pages]), tuple(taken.indirect_gref[:pages])
    else:
        one, other = wire.direct_segments(push), wire.direct_segments(taken)
    return None if one == other else _Difference("segments", one, other)


def _in_pages(pushed: tuple[wire.Segment, ...], back: BackHalf) -> _Difference | None:
    assert back.segments is not None
    assert back.grefs is not None
    grefs = back.grefs[wire.indirect_pages(back.nr) :]
    read = (wire.Segment(gref, *extent) for gref, extent in zip(grefs, back.segments, strict=True))
    for number, (one, other) in enumerate(zip(pushed, read, strict=True)):
        if one != other:
            return _Difference(f"segment {number}", one, other)
    return None


def _not_as_pushed(judge: Judge, front: FrontHalf, back: BackHalf, found: _Difference) -> None:
    assert front.push is not None
    push = Bound.to("P", front.push, f"request id {front.push.id} is put into ring entry {front.index}")
    judge.breaks(
        "content",
        f"the backend reads request id {back.id} other than it was written: {found.name} is {found.read}",
        bound=[push, names.taken(back)],
        because=[
            f"P and R{back.id} are one request, because both stand at ring entry {back.index}",
            f"{found.name} is {found.written} in P",
        ],
        contradiction=f"{found.name} is {found.read} in R{back.id}",
    )


class _Push(NamedTuple):
    """An entry that is made visible: by which event, in which words, and when the other side took it."""

    event: Event
    what: str
    owed: bool
    taken: int | None


@rule(
    id="R24",
    level="MUST",
    side="both",
    source="ring.h RING_PUSH_REQUESTS_AND_CHECK_NOTIFY, RING_PUSH_RESPONSES_AND_CHECK_NOTIFY",
    obligation="Who pushes an entry at which the other side asked to be notified, notifies it.",
    needs={"fe_queue", "fe_push", "be_request", "be_response", "ev_notify"},
    also={"fe_response", "xs_switch"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ)),
    breaks=lambda play: play.set(ended="stall").push(skip={"ev_notify"}),
)
def notified(run: History, judge: Judge) -> None:
    """Follow for each ring and side what was pushed and whether it was told."""
    notes: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for event in run.table.rows(["ev_notify"]):
        notes[event.source, event.irq].append(event.tsc)
    for ring in run.rings:
        for source, pushes in ((run.guest(ring), _requests(ring)), (BACKEND, _responses(ring))):
            ordered = sorted(pushes, key=lambda push: push.event.tsc)
            if ordered:
                _side(run, judge, _Side(ring, source, notes[source, ordered[0].event.irq]), ordered)


def _requests(ring: Ring) -> Iterator[_Push]:
    for request in ring.requests:
        front, back = request.front, request.back
        if front is not None and (event := front.push) is not None:
            owed = _asked(event.s_req_prod, event.s_req_event, event.req_prod_pvt)
            taken = None if back is None else back.taken.tsc
            yield _Push(event, f"request id {event.id} is pushed", owed, taken)


def _responses(ring: Ring) -> Iterator[_Push]:
    for request in ring.requests:
        front, back = request.front, request.back
        if back is not None and (event := back.response) is not None:
            owed = _asked(event.s_rsp_prod, event.s_rsp_event, event.rsp_prod_pvt + 1)
            taken = None if front is None or front.completion is None else front.completion.tsc
            yield _Push(event, f"a response to id {event.id} is pushed", owed, taken)


def _asked(old: int, event: int, new: int) -> bool:
    """Tell whether the event index of the other side is among the entries from ``old`` to ``new``."""
    return (new - event) & wire.INDEX_MASK < (new - old) & wire.INDEX_MASK


class _Side(NamedTuple):
    """Who pushes on a ring, and the ticks at which it notified the other side."""

    ring: Ring
    source: str
    told: list[int]


def _side(run: History, judge: Judge, side: _Side, pushes: list[_Push]) -> None:
    """Let every notification pay the last push that called for one; what stays unpaid was not told."""
    unpaid: list[_Push] = []
    paid_until = 0
    for push in pushes:
        now = bisect_right(side.told, push.event.tsc)
        _pay(judge, unpaid, now - paid_until)
        paid_until = now
        if push.owed:
            unpaid.append(push)
        else:
            judge.holds()
    _pay(judge, unpaid, len(side.told) - paid_until)
    for push in unpaid:
        _untold(run, judge, side, push)


def _pay(judge: Judge, unpaid: list[_Push], notes: int) -> None:
    for _ in range(min(notes, len(unpaid))):
        unpaid.pop()
        judge.holds()


def _untold(run: History, judge: Judge, side: _Side, push: _Push) -> None:
    ring, source, told = side
    later = bisect_right(told, push.event.tsc)
    # The other side may have been awake, and moved its index on between our look and the driver's.
    if push.taken is not None and (later == len(told) or push.taken < told[later]):
        judge.holds()
        return
    end = run.end if push.taken is None else push.taken
    other = run.guest(ring) if source == BACKEND else BACKEND
    if gap := judge.gap(source, push.event.tsc, end) or judge.gap(other, push.event.tsc, end):
        judge.undecided(gap)
        return
    over = push.taken is not None or run.facts.ended == "stall" or run.closed(ring.device, push.event.tsc)
    if not over:
        judge.undecided("the recording ended before the other side had taken what was pushed")
        return
    judge.breaks(
        "not notified",
        f"{push.what}, and {'the frontend' if source == BACKEND else 'the backend'} is not notified",
        bound=[Bound.to("P", push.event, push.what)],
        because=["the other side's event index, as it stood in P, asked to be notified of just that entry"],
        contradiction="no notification followed P"
        + ("" if push.taken is None else ", and it was taken only after a later one"),
    )
