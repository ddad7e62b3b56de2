"""Whether each request gets its response: R21 and R22."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, Request, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule

_STATUSES = {wire.OKAY, wire.ERROR, wire.NOT_SUPPORTED}
_MAY_BE_UNSUPPORTED = {wire.BARRIER, wire.FLUSH, wire.DISCARD}


@rule(
    id="R21",
    level="MUST",
    side="both",
    source="blkif.h struct blkif_response; Linux make_response, blkif_interrupt",
    obligation="Every request gets exactly one response with its id, and the ids of outstanding requests "
    "differ.",
    needs={"be_request", "be_discard", "be_other", "be_response"},
    also={"fe_queue", "fe_push"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ)),
    breaks=lambda play: play.io(wire.WRITE, be_response={"id": 3}),
)
def one_response_each(run: History, judge: Judge) -> None:
    """Follow every id from the frontend's choice to the backend's response."""
    for ring in run.rings:
        for request in ring.requests:
            if request.back is not None:
                _one_request(run, judge, ring, request, request.back)
        _strays(judge, ring)


def _one_request(run: History, judge: Judge, ring: Ring, request: Request, half: BackHalf) -> None:
    front = request.front
    if front is not None and front.id != half.id:
        _other_id(judge, request, half)
    elif half.same_id is not None:
        _same_id(judge, half, half.same_id)
    elif half.id >= half.taken.nr_ents and run.linux_frontend(ring):
        judge.breaks(
            "id too large",
            f"request id {half.id} on a ring of {half.taken.nr_ents} entries",
            level="LINUX",
            bound=[names.taken(half)],
            because=["Linux's frontend numbers its requests 0 to the size of the ring less one"],
            contradiction=f"the id of R{half.id} is {half.id}",
        )
    elif half.response is None:
        _unanswered(run, judge, ring, half)
    else:
        judge.holds()


def _other_id(judge: Judge, request: Request, half: BackHalf) -> None:
    assert request.front is not None
    queue = names.queued(request.front)
    judge.breaks(
        "id on the ring",
        f"the frontend chose one id and put id {half.id} on the ring (entry {half.index})",
        bound=[queue, names.taken(half)],
        because=[
            f"{queue.label} and R{half.id} are one request, because both stand at ring entry {half.index}",
            f"the frontend remembers {queue.label} by the id in its name",
        ],
        contradiction=f"the id that the backend read there is {half.id}",
    )


def _same_id(judge: Judge, half: BackHalf, other: BackHalf) -> None:
    if gap := judge.gap(BACKEND, other.taken.tsc, half.taken.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "id in use",
        f"request id {half.id} is taken while another request of that id is outstanding",
        bound=[names.taken(other, "A"), names.taken(half, "B")],
        because=["A < B, and no response to A was written before B"],
        contradiction=f"A and B have the same id {half.id}",
    )


def _unanswered(run: History, judge: Judge, ring: Ring, half: BackHalf) -> None:
    closed = run.closed(ring.device, half.taken.tsc)
    gap = judge.gap(BACKEND, half.taken.tsc, run.end)
    if gap or not (closed or run.facts.ended == "stall"):
        judge.undecided(gap or "the recording ended before the backend had answered")
        return
    end = "the backend had closed the device" if closed else "the run had stalled on an idle ring"
    judge.breaks(
        "never answered",
        f"request id {half.id} was never answered",
        bound=[names.taken(half)],
        because=[f"recording went on until {end}, and nothing was lost"],
        contradiction=f"there is no response to R{half.id}",
    )


def _strays(judge: Judge, ring: Ring) -> None:
    if ring.back is None:
        return
    first = ring.back.halves[0].taken
    for event, before in ring.back.stray:
        # A request taken before the recording, or a lost one, may well be answered later.
        if gap := judge.gap(BACKEND, 0, event.tsc):
            judge.undecided(gap)
        elif ring.back.halves[0].index != first.rsp_prod_pvt:
            judge.undecided("requests were outstanding before the recording began")
        elif before is not None and before.response is not None:
            judge.breaks(
                "answered twice",
                f"a second response to request id {event.id} is written",
                bound=[
                    names.taken(before),
                    names.response(before.response, "S1"),
                    names.response(event, "S2"),
                ],
                because=[f"R{before.id} < S1, and S1 answers it", f"no request of id {event.id} follows S1"],
                contradiction="S2 answers it again",
            )
        else:
            judge.breaks(
                "wrong id",
                f"a response is written to id {event.id}, which no outstanding request has",
                bound=[names.response(event)],
                because=["every request that the backend took was recorded, and nothing was lost"],
                contradiction=f"none of them that was outstanding has the id {event.id}",
            )


@rule(
    id="R22",
    level="MUST",
    side="backend",
    source="blkif.h struct blkif_response; Linux commit b94e4b147fd1, blkif_interrupt",
    obligation="A response repeats the operation of its request, that inside of an indirect one, and its "
    "status is 0, -1 or, for what may be unsupported, -2.",
    needs={"be_request", "be_discard", "be_other", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE, nr=20), play.io(wire.FLUSH, nr=0)),
    breaks=lambda play: play.io(wire.WRITE, nr=20, be_response={"op": wire.INDIRECT}),
)
def response_fits(run: History, judge: Judge) -> None:
    """Compare each response with its request."""
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            event = half.response
            if event is None:
                continue
            optional = half.inner_op in _MAY_BE_UNSUPPORTED or half.taken.event == "be_other"
            if event.op != half.inner_op:
                wrong = f"answers a {wire.operation(half.inner_op)} as {wire.operation(event.op)}"
            elif event.status not in _STATUSES or (event.status == wire.NOT_SUPPORTED and not optional):
                wrong = f"answers a {wire.operation(half.inner_op)} with status {event.status}"
            else:
                judge.holds()
                continue
            if gap := judge.gap(BACKEND, half.taken.tsc, event.tsc):
                # The response may belong to a later request of the same id that was lost.
                judge.undecided(gap)
                continue
            _unfit(judge, half, wrong)


def _unfit(judge: Judge, half: BackHalf, wrong: str) -> None:
    assert half.response is not None
    judge.breaks(
        "unfit",
        f"the response to request id {half.id} {wrong}",
        bound=[names.taken(half), names.response(half.response)],
        because=[f"S{half.id} answers R{half.id}, because it is the first response to that id after it"],
        contradiction=f"S{half.id} {wrong}",
    )
