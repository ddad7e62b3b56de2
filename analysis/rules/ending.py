"""What the frontend grants, for how long, and to whom: R38, R48, R49 and R50."""

from __future__ import annotations

from collections import defaultdict

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import Ending, FrontHalf, Grant, Mapping, Request, Ring
from blkproof.analysis.facts import BACKEND, FRONTEND_MODULE
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import PUSHED_IN, UNMAPS_IN, Event

_BACKEND_DOMID = 0
_GRANTING = {"fe_queue", "fe_push", *PUSHED_IN, "gt_grant", "gt_put_free"}


@rule(
    id="R38",
    level="MUST",
    side="frontend",
    source="blkif.h struct blkif_request_segment; Linux get_grant, blkif_setup_rw_req_grant",
    obligation="Every page that a request names is granted to the backend's domain from its push to its "
    "response, and holds its data.",
    needs={"fe_queue", "fe_push", "gt_grant", "gt_put_free"},
    also={*PUSHED_IN, "fe_response", "fe_connect", "be_request", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, nr=20), play.io(wire.WRITE, nr=200)),
    breaks=lambda play: play.io(wire.WRITE, skip={"gt_grant"}),
)
def granted_while_in_use(run: History, judge: Judge) -> None:
    """Follow every grant that stands in a request, and whether written data reached its page."""
    for ring in run.rings:
        ready = _ready(run, ring)
        ready = ready if ready is not None and _has(run, ready, "bounce") else None
        for request in ring.requests:
            half = request.front
            if half is None or half.push is None:
                continue
            if ring.front is not None and ring.front.halves[0].index:
                judge.undecided("grants may have been given before the recording began", len(half.granted))
                continue
            _copied(judge, half, ready)
            for gref, grant in half.granted.items():
                _granted(run, judge, request, gref, grant)


def _copied(judge: Judge, half: FrontHalf, ready: Event | None) -> None:
    """Look whether what moves through pages that were granted before the request came is copied."""
    assert half.push is not None
    indirect = half.push.op == wire.INDIRECT
    inner = half.push.indirect_op if indirect else half.push.op
    if half.push.copy or (inner == wire.READ and (ready is None or ready.bounce)):
        return
    fresh = {grant.event.ref for grant in half.grants}
    kept = [
        segment.gref
        for segment in half.segments or ()
        if segment.gref not in fresh and half.granted[segment.gref] is not None
    ]
    if not kept or judge.gap(half.push.source, half.queue.tsc, half.push.tsc, _GRANTING):
        return
    grant = half.granted[kept[0]]
    assert grant is not None
    judge.breaks(
        "not copied",
        f"the data of request id {half.id} is in no granted page, and not copied into or out of one",
        bound=[_given(grant), names.queued(half), _pushed(half)],
        because=[f"grant {kept[0]} was given before the request came, so its page is not that of the data"],
        contradiction="the data is not copied",
    )


def _granted(run: History, judge: Judge, request: Request, gref: int, grant: Grant | None) -> None:
    half = request.front
    assert half is not None
    assert half.push is not None
    source = half.push.source
    if grant is None:
        if gap := judge.gap(source, run.begin, half.push.tsc, _GRANTING):
            judge.undecided(gap)
            return
        judge.breaks(
            "not granted",
            f"request id {half.id} names grant {gref}, which is not granted",
            bound=[names.queued(half), _pushed(half)],
            because=["every grant was recorded from the beginning on, and none of this page is in force"],
            contradiction=f"grant {gref} is in P",
        )
    elif grant.event.dom != _BACKEND_DOMID:
        judge.breaks(
            "other domain",
            f"request id {half.id} names grant {gref}, which is given to domain {grant.event.dom}",
            bound=[_given(grant), _pushed(half)],
            because=["the backend is in domain 0"],
            contradiction=f"G is for domain {grant.event.dom}",
        )
    else:
        _kept_up(judge, request, grant)


def _kept_up(judge: Judge, request: Request, grant: Grant) -> None:
    half, back = request.front, request.back
    assert half is not None
    assert half.push is not None
    answer = back.response if back is not None else None
    end = answer or half.completion
    if grant.ended is None or end is None or grant.ended.tsc >= end.tsc:
        judge.holds()
        return
    lost = judge.gap(half.push.source, half.push.tsc, end.tsc)
    if back is not None and answer is not None:
        lost = lost or judge.gap(BACKEND, back.taken.tsc, answer.tsc)
    if lost:
        judge.undecided(lost)
        return
    judge.breaks(
        "ended early",
        f"frontend ends grant {grant.event.ref} before request id {half.id}, which uses it, is answered",
        bound=[
            _pushed(half),
            Bound.to("E", grant.ended, f"grant {grant.event.ref} is ended"),
            Bound.to("S", end, f"request id {half.id} is answered"),
        ],
        because=[f"P puts grant {grant.event.ref} on the ring, and P < E < S"],
        contradiction=f"grant {grant.event.ref} is not in force from E on",
    )


def _given(grant: Grant, label: str = "G") -> Bound:
    return Bound.to(label, grant.event, f"grant {grant.event.ref} is given to domain {grant.event.dom}")


def _pushed(half: FrontHalf) -> Bound:
    assert half.push is not None
    return Bound.to("P", half.push, f"request id {half.id} is put into ring entry {half.index}")


@rule(
    id="R48",
    level="MUST",
    side="frontend",
    source="XSA-396, Linux commit abf1fd5919d6; blkif_completion",
    obligation="After the response the frontend ends every grant of a request; what the backend still maps "
    "it keeps, or without persistent grants it stops using the device.",
    needs={"fe_queue", "fe_push", "fe_response", "gt_try_end", "gt_put_free"},
    also={*PUSHED_IN},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, nr=20)),
    breaks=lambda play: play.io(wire.WRITE, skip={"gt_try_end", "gt_put_free"}),
)
def ended_after_use(run: History, judge: Judge) -> None:
    """Look how the frontend tries to end the grants of each completed request."""
    for ring in run.rings:
        halves = ring.front.halves if ring.front else []
        last = max((half.queue.tsc for half in halves), default=0)
        for half in halves:
            if half.completion is not None and half.granted:
                _ended(run, judge, ring, half, last)


def _ended(run: History, judge: Judge, ring: Ring, half: FrontHalf, last: int) -> None:
    assert half.completion is not None
    tried = [ending.event.ref for ending in half.endings]
    stuck = next((ending for ending in half.endings if ending.freed is None), None)
    forgotten = [gref for gref in half.granted if gref not in tried]
    goes_on = stuck is not None and not half.queue.persistent and last > stuck.event.tsc
    if not forgotten and not goes_on:
        judge.holds(len(tried))
        return
    # Who keeps nothing stops at the first grant that is still mapped.
    if forgotten and stuck is not None and not half.queue.persistent and not goes_on:
        judge.holds(len(tried))
        return
    if gap := judge.gap(half.queue.source, half.queue.tsc, run.end):
        judge.undecided(gap)
    elif goes_on:
        assert stuck is not None
        _goes_on(judge, ring, half, stuck)
    elif last <= half.completion.tsc and run.facts.ended != "ok":
        judge.undecided("the recording ended before the frontend had completed the request")
    else:
        judge.breaks(
            "not ended",
            f"frontend completes request id {half.id} and does not end grant {forgotten[0]}",
            bound=[_pushed(half), Bound.to("C", half.completion, "the frontend takes the response")],
            because=[f"P puts grant {forgotten[0]} on the ring, and C answers P"],
            contradiction=f"the frontend does not try to end grant {forgotten[0]} after C",
        )


def _goes_on(judge: Judge, ring: Ring, half: FrontHalf, stuck: Ending) -> None:
    assert half.completion is not None
    assert ring.front is not None
    ref = stuck.event.ref
    after = next(other for other in ring.front.halves if other.queue.tsc > stuck.event.tsc)
    judge.breaks(
        "goes on",
        f"frontend goes on although the backend still maps grant {ref}, which it did not agree to",
        bound=[
            Bound.to("C", half.completion, "the frontend takes the response"),
            Bound.to("T", stuck.event, f"the frontend tries to end grant {ref}"),
            names.queued(after),
        ],
        because=["the two sides have not agreed on persistent grants", f"grant {ref} is not free after T"],
        contradiction="the frontend queues another request on the same ring",
    )


@rule(
    id="R49",
    level="MUST",
    side="frontend",
    source="XSA-396, Linux commit 42baefac638f; gnttab_end_foreign_access, gnttab_add_deferred",
    obligation="A grant reference is not free again while the backend maps its page.",
    needs={
        *("fe_queue", "fe_push", "gt_grant", "gt_put_free", "be_request", "be_map", "be_map_ret", "gt_map"),
    },
    also={*UNMAPS_IN, "be_add", "be_add_ret", "be_io_end", "be_purge", "be_free_persistent"},
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: (play.io(wire.WRITE), play.free(100)),
)
def not_freed_while_mapped(run: History, judge: Judge) -> None:
    """Compare when references became free with when the backend certainly still had them mapped."""
    maps: defaultdict[tuple[int, int], list[Mapping]] = defaultdict(list)
    for mapping in run.mappings:
        maps[mapping.op.dom, mapping.op.gref].append(mapping)
    for grant in run.grants:
        if grant.ended is None:
            continue
        domid = run.facts.domids.get(grant.event.source, -1)
        wrong = next((m for m in maps[domid, grant.event.ref] if _mapped_at(run, m, grant)), None)
        if wrong is None:
            judge.holds()
        elif gap := judge.gap(BACKEND, wrong.event.tsc, grant.ended.tsc):
            judge.undecided(gap)
        else:
            judge.breaks(
                "freed",
                f"frontend frees grant {grant.event.ref} while the backend maps it",
                bound=[
                    _given(grant),
                    names.mapped(wrong, "M"),
                    Bound.to("F", grant.ended, f"reference {grant.event.ref} is free again"),
                ],
                because=["G < M < F", "nothing was under way to unmap M before F"],
                contradiction=f"handle {wrong.op.handle} of M is in force at F",
            )


def _mapped_at(run: History, mapping: Mapping, grant: Grant) -> bool:
    """Tell whether a page was certainly mapped when its grant ended, which it was given by before."""
    assert grant.ended is not None
    if mapping.hidden or not grant.event.tsc < mapping.event.tsc < grant.ended.tsc:
        return False
    return grant.ended.tsc < _certain_until(run, mapping)


def _certain_until(run: History, mapping: Mapping) -> int:
    """Return until when a page was mapped for certain: an unmap is recorded some time after it happened."""
    half = mapping.call.half
    if half is None:
        return mapping.event.tsc
    end = mapping.unmapped.tsc if mapping.unmapped is not None else run.end
    if mapping.entry is None:
        return max((event.tsc for event in half.io_ends if event.tsc < end), default=mapping.event.tsc)
    begin = mapping.event.tsc
    emptied = [t.event.tsc for t in half.ring.teardowns if begin < t.event.tsc < end]
    scans = [event.tsc for event in half.ring.purges if begin < event.tsc < end]
    if emptied or mapping.unmapped is None:
        return min(emptied or (*scans[:1], end))
    # The last scan may have come after an unmap that was recorded only then.
    return scans[-2] if len(scans) > 1 else begin


@rule(
    id="R50",
    level="MUST",
    side="frontend",
    source="XSA-403, Linux commits 2f446ffe9d73, 2400617da7ee; talk_to_blkback",
    obligation="A backend that is not trusted sees nothing but the data: it is copied into pages that hold "
    "nothing else, and are empty at first, which no trace can show.",
    needs={"fe_queue", "fe_push"},
    also={"fe_connect"},
    obeys=lambda play: play.set(front_offer=0, front_parameter="N", trusted="N").io(wire.WRITE),
    breaks=lambda play: play.set(front_offer=0, front_parameter="N", trusted="N").io(
        wire.WRITE, fe_push={"copy": 0}
    ),
)
def copied_for_the_untrusted(run: History, judge: Judge) -> None:
    """Look whether all writes to a backend that is not trusted are copied."""
    for ring in run.rings:
        if _trusted(run, ring):
            continue
        for half in ring.front.halves if ring.front else ():
            if half.push is None or half.push.op == wire.READ or not half.push.nr + half.push.indirect_nr:
                continue
            if half.push.copy or (half.push.op == wire.INDIRECT and half.push.indirect_op == wire.READ):
                judge.holds()
                continue
            judge.breaks(
                "not copied",
                f"frontend lets an untrusted backend see the pages of request id {half.id} themselves",
                bound=[names.queued(half), _pushed(half)],
                because=["the frontend's parameter trusted is N, or its key trusted is 0"],
                contradiction="the data is not copied",
            )


def _trusted(run: History, ring: Ring) -> bool:
    key = paths.front(ring.device, "trusted")
    told = run.facts.during.get(key, "1") != "0"
    ready = _ready(run, ring)
    if ready is not None and _has(run, ready, "trusted"):
        return told and bool(ready.trusted)
    return told and run.facts.switch(run.guest(ring), FRONTEND_MODULE, "trusted") is not False


def _has(run: History, event: Event, field: str) -> bool:
    """Tell whether a field of an event was recorded; a kernel may lack what it stands for."""
    return field not in run.table.missing.get(event.source, {}).get(event.event, ())


def _ready(run: History, ring: Ring) -> Event | None:
    """Return the preparation of a ring by its frontend."""
    found = None
    for event in run.table.rows(["fe_connect"]):
        if ring.front is not None and event.rinfo == ring.front.address and event.tsc <= ring.begin:
            found = event
    return found
