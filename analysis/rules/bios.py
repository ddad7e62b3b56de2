"""What the backend's disk has done when a request is answered: R36 and R37."""

from __future__ import annotations

from collections.abc import Sequence

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound

_FLUSHES = {wire.BARRIER, wire.FLUSH}


@rule(
    id="R36",
    level="MUST",
    side="both",
    source="blkif.h BLKIF_OP_FLUSH_DISKCACHE, _WRITE_BARRIER; Linux dispatch_rw_block_io, xen_blk_drain_io",
    obligation="A flush or barrier is never indirect; the backend has its disk flush for it, for a barrier "
    "only after all earlier requests of the ring are answered.",
    needs={"be_request", "be_submit", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.FLUSH, nr=0), play.io(wire.BARRIER, nr=1)),
    breaks=lambda play: play.io(wire.FLUSH, nr=0, be_submit={"opf": 1}),
)
def flushes_the_disk(run: History, judge: Judge) -> None:
    """Look at the bios of every flush and barrier, and at what was unanswered when they were submitted."""
    for ring in run.rings:
        halves = [half for half in ring.back.halves if half.has_data] if ring.back else []
        for number, half in enumerate(halves):
            if half.inner_op not in _FLUSHES:
                continue
            if half.indirect:
                _indirect(judge, half)
            elif half.response is None or half.response.status != wire.OKAY:
                judge.holds()
            elif half.submit is None or not half.submit.opf & wire.PREFLUSH:
                _not_flushed(judge, half)
            elif half.op == wire.BARRIER:
                _drained(judge, half, halves[:number])
            else:
                judge.holds()


def _indirect(judge: Judge, half: BackHalf) -> None:
    judge.breaks(
        "indirect",
        f"request id {half.id} is an indirect {wire.operation(half.inner_op)}",
        bound=[names.taken(half)],
        because=["only reads and writes may be indirect"],
        contradiction=f"R{half.id} wraps a {wire.operation(half.inner_op)}",
    )


def _not_flushed(judge: Judge, half: BackHalf) -> None:
    assert half.response is not None
    if gap := judge.gap(BACKEND, half.taken.tsc, half.response.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "not flushed",
        f"the backend answers {wire.operation(half.op)} id {half.id} without having its disk flush",
        bound=[
            names.taken(half),
            *([names.submitted(half)] if half.submit else []),
            names.response(half.response),
        ],
        because=[f"S{half.id} says that R{half.id} is done"],
        contradiction=f"no bio with REQ_PREFLUSH was submitted for R{half.id} before S{half.id}",
    )


def _drained(judge: Judge, half: BackHalf, earlier: Sequence[BackHalf]) -> None:
    assert half.submit is not None
    begin = half.submit.tsc
    open_ones = (other for other in earlier if other.response is None or other.response.tsc > begin)
    other = next(open_ones, None)
    if other is None:
        judge.holds()
        return
    if gap := judge.gap(BACKEND, other.taken.tsc, begin):
        judge.undecided(gap)
        return
    judge.breaks(
        "not drained",
        f"the backend starts barrier id {half.id} while request id {other.id} is not answered",
        bound=[names.taken(other, "A"), names.taken(half, "R"), names.submitted(half)],
        because=["A < R, so that A has to be over when R begins"],
        contradiction=f"A is not answered before B{half.id}",
    )


@rule(
    id="R37",
    level="MUST",
    side="backend",
    source="blkif.h BLKIF_RSP_OKAY; Linux __end_block_io_op, xen_blkbk_unmap_and_respond",
    obligation="A request is answered when the last of its bios has ended, as OKAY only if all went well.",
    needs={"be_request", "be_submit", "be_io_end", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, nr=20), play.io(wire.FLUSH, nr=0)),
    breaks=lambda play: play.io(wire.READ, be_io_end={"error": 10}),
)
def answered_when_done(run: History, judge: Judge) -> None:
    """Count the bios of every request that was answered as OKAY, and look how they ended."""
    for ring in run.rings:
        late = {}
        for event, half in reversed(ring.back.late_ends if ring.back else ()):
            late[half] = Bound.to("E", event, f"a bio of request id {event.id} ends")
        for half in ring.back.halves if ring.back else ():
            answer = half.response
            if not half.has_data or answer is None or answer.status != wire.OKAY:
                continue
            failed = next((event for event in half.io_ends if event.error), None)
            if half.submit is not None and len(half.io_ends) >= half.submit.nbio and failed is None:
                judge.holds()
            elif gap := judge.gap(BACKEND, half.taken.tsc, answer.tsc):
                judge.undecided(gap)
            elif failed is not None:
                end = Bound.to("E", failed, f"a bio ends with error {failed.error}")
                _wrong(judge, half, "error hidden", "although a bio failed", [end])
            else:
                found = [late[half]] if half in late else []
                _wrong(judge, half, "early", "before its bios have ended", found)


def _wrong(judge: Judge, half: BackHalf, kind: str, how: str, ends: Sequence[Bound]) -> None:
    assert half.response is not None
    count = half.submit.nbio if half.submit else 0
    judge.breaks(
        kind,
        f"the backend answers request id {half.id} as OKAY {how}",
        bound=[
            names.taken(half),
            *([names.submitted(half)] if half.submit else []),
            names.response(half.response),
            *ends,
        ],
        because=[f"{count} bios were submitted for R{half.id}; {len(half.io_ends)} ended before S{half.id}"],
        contradiction=f"S{half.id} says that all is well {how}",
    )
