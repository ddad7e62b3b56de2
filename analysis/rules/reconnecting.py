"""What survives a reconnection: R61 and R63."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from blkproof.analysis import names, wire
from blkproof.analysis.entities import FrontHalf, FrontRing
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_INITIALISING, _INIT_WAIT, _CLOSING, _CLOSED = 1, 2, 5, 6
"""States of XenBus."""
_INTRODUCTION: Final = "multi-queue-max-queues"
"""The key that a backend always writes as it begins."""
_OPERATION_BITS: Final = 0xFF
"""REQ_OP_* in cmd_flags."""


@rule(
    id="R61",
    level="MUST",
    side="backend",
    source="Linux frontend_changed, xen_blkif_disconnect",
    obligation="A closed backend waits for a frontend only when that begins anew, and one that connects "
    "again lets go of the old ring first.",
    needs={"xs_switch", "be_fe_changed", "gt_map_ring", "gt_unmap_ring"},
    also={"xs_write"},
    obeys=lambda play: (play.io(wire.WRITE), play.close(), play.reconnect(), play.io(wire.WRITE)),
    breaks=lambda play: (
        play.io(wire.WRITE),
        play.close(),
        play.reconnect(skip={"be_fe_changed"}),
        play.io(wire.WRITE),
    ),
)
def starts_over(run: History, judge: Judge) -> None:
    """Follow for each backend the states of both sides, and the rings that it maps.

    A new device of the same name first says what its rings may be: what was before is not its own.
    """
    closed: dict[str, Event] = {}
    seen: dict[str, Event] = {}
    mapped: defaultdict[str, dict[int, Event]] = defaultdict(dict)
    for event in run.table.rows(["xs_write", "xs_switch", "be_fe_changed", "gt_map_ring", "gt_unmap_ring"]):
        if event.event == "xs_write":
            if event.node == _INTRODUCTION:
                mapped.pop(event.dir, None)
                closed.pop(event.dir, None)
            continue
        node = event.node
        if event.source != BACKEND or "/vbd/" not in node:
            continue
        if event.event == "be_fe_changed":
            seen[node] = event
        elif event.event == "gt_unmap_ring":
            rings = mapped[node]
            rings.pop(next(iter(rings), -1), None)
        elif event.event == "gt_map_ring":
            _mapped(judge, mapped[node].get(event.gref), event)
            mapped[node][event.gref] = event
        elif event.state == _CLOSED:
            closed[node] = event
        elif event.state == _CLOSING:
            # A ring that could not be mapped is never unmapped, and ends the connection.
            mapped[node].clear()
        elif event.state == _INIT_WAIT and (end := closed.pop(node, None)) is not None:
            _anew(judge, end, seen.get(node), event)


def _mapped(judge: Judge, before: Event | None, event: Event) -> None:
    if before is None:
        judge.holds()
    elif gap := judge.gap(BACKEND, before.tsc, event.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "ring",
            f"the ring in grant {event.gref} is mapped again while it is mapped",
            bound=[Bound.to("A", before, "a ring is mapped"), Bound.to("B", event, "it is mapped again")],
            because=["no ring of the device was unmapped between A and B"],
            contradiction="B maps it twice",
        )


def _anew(judge: Judge, closed: Event, seen: Event | None, wait: Event) -> None:
    if seen is not None and seen.tsc > closed.tsc and seen.state == _INITIALISING:
        judge.holds()
    elif gap := judge.gap(BACKEND, closed.tsc, wait.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "state",
            "a closed backend waits for a frontend that has not begun anew",
            bound=[
                Bound.to("X", closed, "the backend is closed"),
                *([Bound.to("F", seen, f"its frontend is in state {seen.state}")] if seen else []),
                Bound.to("W", wait, "the backend waits for a frontend"),
            ],
            because=["after X the backend has to see its frontend in state 1 before W"],
            contradiction="it did not",
        )


@rule(
    id="R63",
    level="MUST",
    side="frontend",
    source="Linux blkfront_resume, blkif_recover",
    obligation="What was in flight when a ring was lost is asked for again on the next one.",
    needs={"fe_queue", "fe_push", "fe_free", "fe_connect"},
    also={"fe_discard", "fe_response", "fe_recycle"},
    obeys=lambda play: (play.push(), play.lose_ring(), play.reconnect(), play.io(wire.WRITE)),
    breaks=lambda play: (play.push(nr=4), play.lose_ring(), play.reconnect(), play.io(wire.WRITE)),
)
def asked_for_again(run: History, judge: Judge) -> None:
    """Look on the next ring of the device for all that the lost one had in flight."""
    fronts = [ring.front for ring in run.rings if ring.front is not None]
    connects = list(run.table.rows(["fe_connect"]))
    for free in run.table.rows(["fe_free"]):
        before = [
            c for c in connects if (c.source, c.rinfo) == (free.source, free.rinfo) and c.tsc < free.tsc
        ]
        again = next((c for c in connects if before and _same_disk(c, before[-1]) and c.tsc > free.tsc), None)
        if again is None:
            continue
        nexts = [f for f in fronts if f.vdev == again.vdev and f.halves[0].queue.tsc > again.tsc]
        lost = run.in_flight(free)
        for half in lost:
            _again(run, judge, half, free, nexts)
        if not lost:
            judge.holds()


def _same_disk(one: Event, other: Event) -> bool:
    return (one.source, one.vdev) == (other.source, other.vdev)


def _again(run: History, judge: Judge, half: FrontHalf, free: Event, nexts: Sequence[FrontRing]) -> None:
    missing = _missing(half, nexts)
    if missing is None:
        judge.holds()
        return
    gap = judge.gap(free.source, half.queue.tsc, run.end)
    closing = any(s.source == free.source and s.state >= _CLOSING and s.tsc > free.tsc for s in run.switches)
    idle = all(h.completion or h.recycled for front in nexts for h in front.halves)
    if gap or not (nexts and idle and closing):
        judge.undecided(gap or "the recording ended before all could have been asked for again")
        return
    judge.breaks(
        "forgotten",
        f"request id {half.id} was in flight when its ring was lost, and is never asked for again",
        bound=[
            names.queued(half),
            Bound.to("F", free, "the frontend frees the ring"),
            Bound.to("N", nexts[0].halves[0].queue, "the first request on the next ring"),
        ],
        because=["it was not completed before F", "N is the first request on the next ring"],
        contradiction=f"sector {missing} is never asked for after N",
    )


def _missing(half: FrontHalf, nexts: Sequence[FrontRing]) -> int | None:
    """Return the first sector of a request that was not asked for again in the same direction, or None."""
    kind = _kind(half)
    sector, end = half.queue.sector, half.queue.sector + half.sectors
    spans = sorted(
        (later.queue.sector, later.queue.sector + later.sectors)
        for front in nexts
        for later in front.halves
        if _kind(later) == kind
    )
    if sector == end:
        return None if spans else int(sector)
    for begin, stop in spans:
        if begin <= sector < stop:
            sector = stop
    return int(sector) if sector < end else None


def _kind(half: FrontHalf) -> int:
    """Return what kind of request it is: reads, writes, and all others by their operation."""
    if half.queue.event == "fe_discard":
        return wire.DISCARD << 8
    return int(half.queue.flags) & _OPERATION_BITS
