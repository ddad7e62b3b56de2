"""How the frontend ends a device: R62 and R65, and what nobody sees of it: R66."""

from __future__ import annotations

from typing import Final, NamedTuple

from blkproof.analysis import names, wire
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule, undecidable
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import PUSHED_IN, Event

_CLOSING: Final = 5
_CLOSED: Final = 6
"""States of XenBus."""


@rule(
    id="R62",
    level="MUST",
    side="frontend",
    source="blkif.h state diagrams; Linux blkfront_closing, blkif_free",
    obligation="A frontend that is closing, or has freed its ring, pushes nothing until it connects again.",
    needs={"fe_queue", "fe_push", "fe_free", "fe_connect", "xs_switch"},
    also={"fe_discard"},
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: (play.io(wire.WRITE), play.close(), play.io(wire.WRITE)),
)
def quiet_when_closed(run: History, judge: Judge) -> None:
    """Look for requests between each closing of a device and its next connection."""
    shut: dict[tuple[str, object], Event] = {}
    vdevs: dict[tuple[str, int], int] = {}
    for event in run.table.rows(["xs_switch", "fe_free", "fe_connect", "fe_push", "fe_discard"]):
        if event.source == BACKEND:
            continue
        if event.event == "xs_switch":
            if _node(event.node) is not None and event.state in (_CLOSING, _CLOSED):
                shut.setdefault((event.source, _node(event.node)), event)
            continue
        ring = event.source, f"ring {event.rinfo}"
        device = event.source, vdevs.get((event.source, event.rinfo))
        if event.event == "fe_connect":
            vdevs[event.source, event.rinfo] = event.vdev
            for known in (ring, (event.source, event.vdev)):
                if shut.pop(known, None) is not None:
                    judge.holds()
        elif event.event == "fe_free":
            shut.setdefault(ring, event)
        else:
            _pushed_late(judge, shut.get(ring) or shut.get(device), event)
    judge.holds(len(shut))


def _node(path: str) -> int | None:
    """Return the device of a frontend's directory, or None for another."""
    parts = path.rsplit("/", 2)
    return int(parts[-1]) if parts[-2:-1] == ["vbd"] and parts[-1].isdecimal() else None


def _pushed_late(judge: Judge, shut: Event | None, push: Event) -> None:
    if shut is None:
        return
    if gap := judge.gap(push.source, shut.tsc, push.tsc):
        judge.undecided(gap)
        return
    done = "has freed its ring" if shut.event == "fe_free" else "is closing"
    judge.breaks(
        "late",
        f"the frontend {done}, and then pushes request id {push.id}",
        bound=[
            Bound.to("C", shut, f"the frontend {done}"),
            Bound.to("P", push, f"request id {push.id} is pushed"),
        ],
        because=["C < P, and it did not connect between them"],
        contradiction="P is a request",
    )


@rule(
    id="R65",
    level="MUST",
    side="frontend",
    source="Linux blkif_free_ring",
    obligation="When a ring is freed each request in flight is released by its kind: the grants of its "
    "segments and of its indirect pages are ended once, and a flush or discard has none.",
    needs={"fe_connect", "fe_queue", "fe_push", "fe_free", "gt_grant", "gt_end", "gt_put_free"},
    also={
        "xs_write",
        "fe_discard",
        "fe_response",
        "fe_recycle",
        *PUSHED_IN,
        "gt_try_end",
    },
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.WRITE, nr=20)),
    breaks=lambda play: (play.io(wire.WRITE), play.close(gt_end={"ref": 0xDEAD})),
)
def released_by_kind(run: History, judge: Judge) -> None:
    """Follow what each freeing of a ring ends: only what was granted, and all that was still in use."""
    connected: set[tuple[str, int]] = set()
    granted: dict[tuple[str, int], Event] = {}
    freeing: dict[tuple[str, int], _Freeing] = {}
    for event in run.table.rows(["fe_connect", "gt_grant", "gt_put_free", "fe_free", "gt_end"]):
        if event.event == "fe_connect":
            connected.add((event.source, event.rinfo))
            continue
        if event.event == "fe_free":
            freeing.pop((event.source, event.pid), None)
            if (event.source, event.rinfo) in connected:
                freeing[event.source, event.pid] = _Freeing(event, {})
            else:
                judge.undecided(judge.gap(event.source, 0, event.tsc) or "a ring was connected unseen")
            continue
        ref = event.source, event.ref
        if event.event == "gt_grant":
            granted[ref] = event
        elif event.event == "gt_put_free":
            granted.pop(ref, None)
        elif (now := freeing.get((event.source, event.pid))) is not None:
            _ended(judge, now, event, granted.get(ref))
            now.ended.setdefault(event.ref, event)
            if any(
                page.event.ref == event.ref and page.event.source == event.source for page in run.ring_pages
            ):
                del freeing[event.source, event.pid]
                _all_ended(run, judge, now)


class _Freeing(NamedTuple):
    """A ring is being freed, and the grants that were ended since."""

    event: Event
    ended: dict[int, Event]


def _ended(judge: Judge, freeing: _Freeing, end: Event, grant: Event | None) -> None:
    twice = freeing.ended.get(end.ref)
    if grant is not None and twice is None:
        judge.holds()
        return
    if gap := judge.gap(end.source, 0, end.tsc):
        judge.undecided(gap)
        return
    text = "is ended twice" if twice is not None else "is ended although it was not granted"
    judge.breaks(
        text,
        f"a ring is freed, and with it grant {end.ref} {text}",
        bound=[
            Bound.to("F", freeing.event, "the frontend frees a ring"),
            *([Bound.to("D", twice, f"grant {end.ref} is ended")] if twice is not None else []),
            Bound.to("E", end, f"grant {end.ref} is ended"),
        ],
        because=["F ends what the requests in flight and the list of grants name"],
        contradiction=f"grant {end.ref} {text}",
    )


def _all_ended(run: History, judge: Judge, freeing: _Freeing) -> None:
    """Look for grants of requests in flight that the freeing of their ring left."""
    for half in run.in_flight(freeing.event):
        if half.push is None:
            judge.holds()
            continue
        if half.segments is None:
            gap = judge.gap(half.ring.source, half.queue.tsc, freeing.event.tsc)
            judge.undecided(gap or "the segments of a request in flight were not all recorded")
            continue
        pages = (
            half.push.indirect_gref[: wire.indirect_pages(len(half.segments))]
            if half.push.op == wire.INDIRECT
            else ()
        )
        left = [
            gref
            for gref in (*(segment.gref for segment in half.segments), *pages)
            if gref not in freeing.ended
        ]
        if not left:
            judge.holds()
        elif gap := judge.gap(half.ring.source, half.queue.tsc, run.end):
            judge.undecided(gap)
        else:
            judge.breaks(
                "left",
                f"a ring is freed, and grant {left[0]} of request id {half.id} in flight is not ended",
                bound=[names.queued(half), Bound.to("F", freeing.event, "the frontend frees the ring")],
                because=[f"the request was not completed before F, and uses grant {left[0]}"],
                contradiction=f"F does not end grant {left[0]}",
            )


undecidable(
    id="R66",
    level="MUST",
    side="backend",
    source="Linux xen-blkback sysfs statistics, rings_lock; CVE-2026-100082",
    obligation="Reading a device's statistics while it disconnects touches no ring that is gone.",
    reason="nothing records what a reader of sysfs touches: only a kernel that checks its memory could tell",
)
