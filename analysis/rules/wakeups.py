"""Whether each side asks to be woken before it rests, and lets the next event come: R25 and R26."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, FrontRing, Request, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_SPURIOUS: Final = 1
"""XEN_EOI_FLAG_SPURIOUS."""
_SEVERAL: Final = 3
"""Notifications of which the last can't have come unless an earlier one had been let go."""


def _ahead(index: int, of: int) -> int:
    """Return by how much a free-running index is ahead of another."""
    difference = (index - of) & wire.INDEX_MASK
    return difference - (1 << 32) if difference >> 31 else difference


@rule(
    id="R25",
    level="MUST",
    side="both",
    source="ring.h RING_FINAL_CHECK_FOR_REQUESTS, RING_FINAL_CHECK_FOR_RESPONSES",
    obligation="Before a side rests it asks to be notified of the next entry: its event index is one that "
    "the other side will reach.",
    needs={"fe_queue", "fe_push", "be_request", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE), play.burst(3), play.io(wire.READ)),
    breaks=lambda play: (
        play.io(wire.WRITE),
        play.set(ended="stall").push(fe_push={"s_req_event": 1}, skip={"ev_notify"}),
    ),
)
def asks_to_be_woken(run: History, judge: Judge) -> None:
    """Look at both event indices at each push of a request."""
    for ring in run.rings:
        for request in ring.requests:
            if request.front is not None and (push := request.front.push) is not None:
                _frontend(judge, push)
                _backend(run, judge, ring, request, push)


def _frontend(judge: Judge, push: Event) -> None:
    """Look at what the frontend asks for while it has no response to take: it pushes between its looks."""
    if push.s_rsp_prod != push.rsp_cons:
        return
    outstanding = _ahead(push.req_prod_pvt, push.rsp_cons)
    if 1 <= _ahead(push.s_rsp_event, push.rsp_cons) <= outstanding:
        judge.holds()
        return
    judge.breaks(
        "frontend",
        f"the frontend has taken all responses up to {push.rsp_cons}, and asks to be notified of response "
        f"{push.s_rsp_event}",
        bound=[Bound.to("P", push, f"request id {push.id} is pushed")],
        because=[f"{outstanding} requests are outstanding at P, of which {push.rsp_cons + 1} is the next"],
        contradiction=f"rsp_event is {push.s_rsp_event}, and so none of the next responses is told of",
    )


def _backend(run: History, judge: Judge, ring: Ring, request: Request, push: Event) -> None:
    """Look for a request that nobody takes since the backend rests without having asked for it.

    While the backend takes requests its index may stay behind: it moves it when it finds no more.
    """
    ahead = _ahead(push.s_req_event, push.s_req_prod)
    if ahead >= 1:
        judge.holds()
    if ahead >= 1 or request.back is not None or run.facts.ended != "stall" or ring.back is None:
        return
    earlier = [half for half in ring.back.halves if half.taken.tsc < push.tsc]
    if not earlier or any(half.response is None for half in earlier) or _taken_later(ring.back.halves, push):
        return
    if gap := judge.gap(BACKEND, earlier[-1].taken.tsc, run.end):
        judge.undecided(gap)
        return
    judge.breaks(
        "backend",
        f"the backend rests, and asks to be notified of request {push.s_req_event}, which was there before",
        bound=[names.taken(earlier[-1]), Bound.to("P", push, f"request id {push.id} is pushed")],
        because=[
            f"all requests up to R{earlier[-1].id} are answered before the run stalls",
            f"P pushes request {push.req_prod_pvt}, and nobody ever takes it",
        ],
        contradiction=f"req_event is {push.s_req_event} at P, so that P needs no notification",
    )


def _taken_later(halves: Sequence[BackHalf], push: Event) -> bool:
    return halves[-1].taken.tsc > push.tsc


@rule(
    id="R26",
    level="MUST",
    side="both",
    source="Linux blkif_interrupt, xen_blkif_schedule, xen_irq_lateeoi; XSA-332",
    obligation="Each event is let go once its work is done, and called spurious only when there was none.",
    needs={"fe_irq", "fe_queue", "fe_push", "be_request", "be_response", "ev_eoi", "ev_notify"},
    also={"fe_response", "be_discard", "be_other"},
    obeys=lambda play: (play.io(wire.WRITE), play.burst(3)),
    breaks=lambda play: (play.io(wire.READ, ev_eoi={"flags": _SPURIOUS}), play.io(wire.READ)),
)
def lets_go(run: History, judge: Judge) -> None:
    """Compare the ends of events with the interrupts of the frontend, and with the backend's requests."""
    let_go: defaultdict[tuple[str, int], list[Event]] = defaultdict(list)
    for event in run.table.rows(["ev_eoi"]):
        let_go[event.source, event.irq].append(event)
    told: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for event in run.table.rows(["ev_notify"]):
        told[event.source, event.irq].append(event.tsc)
    for ring in run.rings:
        irq = _front_irq(ring)
        if ring.front is not None and irq is not None:
            source = ring.front.source
            _front_ends(judge, ring.front, let_go[source, irq])
            if ring.back is not None and ring.back.responses:
                ends = let_go[BACKEND, ring.back.responses[0].irq]
                _back_ends(run, judge, ring, ends, told[source, irq])


def _front_irq(ring: Ring) -> int | None:
    pushes = (half.push for half in ring.front.halves) if ring.front else ()
    return next((push.irq for push in pushes if push is not None), None)


def _front_ends(judge: Judge, front: FrontRing, ends: Sequence[Event]) -> None:
    """Look for the end of each interrupt; after the last one the ring may be broken, and gets none."""
    times = [end.tsc for end in ends]
    done = sorted(half.completion.tsc for half in front.halves if half.completion is not None)
    for look, following in zip(front.looks, front.looks[1:], strict=False):
        number = bisect_right(times, look.tsc)
        end = ends[number] if number < len(ends) and times[number] < following.tsc else None
        until = end.tsc if end is not None else following.tsc
        work = bisect_right(done, until) - bisect_right(done, look.tsc)
        if end is not None and not (work and end.flags & _SPURIOUS):
            judge.holds()
            continue
        if gap := judge.gap(front.source, look.tsc, following.tsc):
            judge.undecided(gap)
            continue
        bound = [Bound.to("I", look, "the frontend looks for responses")]
        if end is None:
            judge.breaks(
                "frontend kept",
                "the frontend does not let its event go after it looked for responses",
                bound=[*bound, Bound.to("J", following, "it looks again")],
                because=["only after an end the next event should come"],
                contradiction="there is no end between I and J",
            )
        else:
            judge.breaks(
                "frontend spurious",
                f"the frontend calls an event spurious that brought it {work} responses",
                bound=[*bound, Bound.to("E", end, "it lets the event go as spurious")],
                because=[f"it takes {work} responses between I and E"],
                contradiction="E says that there was no work",
            )


def _back_ends(run: History, judge: Judge, ring: Ring, ends: Sequence[Event], told: Sequence[int]) -> None:
    assert ring.back is not None
    taken = [half.taken for half in ring.back.halves]
    times = [event.tsc for event in taken]
    begin = taken[0].tsc
    after = [end for end in ends if end.tsc > begin]
    if not after and bisect_right(told, times[-1]) - bisect_right(told, begin) >= _SEVERAL:
        _never_let_go(run, judge, taken)
        return
    before = begin
    for end in after:
        work = bisect_right(times, end.tsc) - bisect_right(times, before - 1)
        if not work or not end.flags & _SPURIOUS:
            judge.holds()
        elif gap := judge.gap(BACKEND, before, end.tsc):
            judge.undecided(gap)
        else:
            judge.breaks(
                "backend spurious",
                f"the backend calls an event spurious that brought it {work} requests",
                bound=[
                    Bound.to("R", taken[bisect_right(times, end.tsc) - 1], "a request is taken"),
                    Bound.to("E", end, "the event is let go as spurious"),
                ],
                because=["R < E, and no event was let go between them"],
                contradiction="E says that there was no work",
            )
        before = end.tsc + 1


def _never_let_go(run: History, judge: Judge, taken: Sequence[Event]) -> None:
    if gap := judge.gap(BACKEND, taken[0].tsc, run.end):
        judge.undecided(gap)
        return
    judge.breaks(
        "backend kept",
        "the backend never lets an event go, and yet the next one comes",
        bound=[
            Bound.to("A", taken[0], "the first request is taken"),
            Bound.to("B", taken[-1], "the last request is taken"),
        ],
        because=[f"the frontend notified it at least {_SEVERAL} times between A and B"],
        contradiction="no event is let go after A: it was before its work was done",
    )
