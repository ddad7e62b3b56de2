"""Which operations there are, for whom they are, and how they are checked: R28, R33 and R34."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, Request
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import unseen
from blkproof.traces.events import PUSHED_IN


@rule(
    id="R28",
    level="MUST",
    side="frontend",
    source="blkif.h BLKIF_OP_*; Linux __do_block_io_op, dispatch_other_io",
    obligation="An operation is a read, write, barrier, flush, discard or indirect one; the backend answers "
    "any other as not supported.",
    needs={"be_request", "be_discard", "be_other"},
    also={"be_response"},
    obeys=lambda play: (play.io(wire.READ), play.io(wire.WRITE, nr=20), play.discard()),
    breaks=lambda play: play.discard(op=4, status=wire.NOT_SUPPORTED),
)
def known_operation(run: History, judge: Judge) -> None:
    """Look for requests that the backend does not know, and how it answers them."""
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            if half.taken.event != "be_other" and half.op in wire.OPERATIONS:
                judge.holds()
                continue
            answer = half.response
            if answer is not None and judge.gap(BACKEND, half.taken.tsc, answer.tsc):
                answer = None
            accepted = answer is not None and answer.status != wire.NOT_SUPPORTED
            judge.breaks(
                "answered" if accepted else "operation",
                f"request id {half.id} has operation {half.op}, which there is not"
                + (", and the backend does not say so" if accepted else ""),
                bound=[names.taken(half), *([names.response(answer)] if answer else [])],
                because=["blkif.h knows the operations 0, 1, 2, 3, 5 and 6"],
                contradiction=f"the operation of R{half.id} is {half.op}"
                + (f", and the status of S{half.id} is {answer.status}" if accepted and answer else ""),
            )


@rule(
    id="R33",
    level="MUST",
    side="backend",
    source="XSA-155; Linux xen_blkbk_parse_indirect",
    obligation="The backend reads each segment of an indirect page once and checks what it has read, whoever "
    "wrote it.",
    needs={"be_request", "be_indirect", "be_response"},
    also={"be_indirect_more", "be_indirect_rest", "fe_queue", *PUSHED_IN},
    obeys=lambda play: (play.io(wire.WRITE, nr=20), play.io(wire.READ, nr=256)),
    breaks=lambda play: play.io(
        wire.WRITE, segments=[wire.Segment(100 + number, 0, 8) for number in range(20)], nr=20
    ),
)
def segments_checked(run: History, judge: Judge) -> None:
    """Look for segments that are outside of their page in requests that the backend carried out."""
    for ring in run.rings:
        for request in ring.requests:
            half = request.back
            if half is None or not half.indirect or half.response is None:
                continue
            outside = _outside(request, half)
            if half.response.status != wire.OKAY or (outside is None and half.segments is not None):
                judge.holds()
            elif outside is None:
                judge.undecided(unseen(run, judge, half))
            elif gap := judge.gap(BACKEND, half.taken.tsc, half.response.tsc):
                judge.undecided(gap)
            else:
                number, extent = outside
                judge.breaks(
                    "unchecked",
                    f"segment {number} of indirect request id {half.id} is outside of its page, and the "
                    "backend carries it out",
                    bound=[names.taken(half), names.response(half.response)],
                    because=[f"S{half.id} answers R{half.id}", "a granted page has the sectors 0 to 7"],
                    contradiction=f"segment {number} of R{half.id} is {extent.first} to {extent.last}, and "
                    f"S{half.id} says that all is well",
                )


def _outside(request: Request, half: BackHalf) -> tuple[int, wire.Extent] | None:
    """Return the first segment outside of its page that the frontend wrote or the backend read."""
    written = request.front.parts.items() if request.front is not None else ()
    parts = [*half.parts.items(), *((number, segment.extent) for number, segment in written)]
    wrong = (
        (number, extent) for number, extent in parts if not extent.first <= extent.last <= wire.LAST_SECTOR
    )
    return next(wrong, None)


@rule(
    id="R34",
    level="SHOULD",
    side="frontend",
    source="blkif.h struct blkif_request; Linux blkfront_connect, commit 01c681d4c70d",
    obligation="The handle in a request is the number of the frontend's device, which the backend knows "
    "without it.",
    needs={"be_request"},
    obeys=lambda play: (play.io(wire.READ), play.io(wire.WRITE, nr=20)),
    breaks=lambda play: play.io(wire.READ, be_request={"handle": 0}, fe_push={"handle": 0}),
)
def handle_is_the_device(run: History, judge: Judge) -> None:
    """Compare the handle of every request with that of the backend's device."""
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            if not half.has_data:
                continue
            handle = half.taken.indirect_handle if half.indirect else half.taken.handle
            if handle == half.taken.vbd:
                judge.holds()
                continue
            judge.breaks(
                "handle",
                f"request id {half.id} names device {handle} on the ring of device {half.taken.vbd}",
                bound=[names.taken(half)],
                because=[f"the ring belongs to the backend's device {half.taken.vbd}"],
                contradiction=f"the handle in R{half.id} is {handle}",
            )
