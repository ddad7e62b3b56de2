"""Whether data and errors arrive: R58 and R59."""

from __future__ import annotations

from typing import Any, Final

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, FrontHalf
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_FAILED: Final[dict[str, Any]] = {
    "be_io_end": {"error": 10},
    "be_response": {"status": wire.ERROR},
    "fe_response": {"status": wire.ERROR},
}


@rule(
    id="R58",
    level="MUST",
    side="both",
    source="blkif.h struct blkif_request; Linux dispatch_rw_block_io",
    obligation="What is read is what was written: the disk is asked for the sectors of the request, and the "
    "load finds its data again.",
    needs={"be_request", "be_submit", "be_response"},
    also={"be_indirect", "be_indirect_more", "be_indirect_rest"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, nr=20)),
    breaks=lambda play: play.io(wire.WRITE, be_submit={"sector": 4096}),
)
def data_come_back(run: History, judge: Judge) -> None:
    """Compare each request with what the disk is asked for, and ask the load, which verifies its data."""
    submits: dict[tuple[int, int], list[Event]] = {}
    for event in run.table.rows(["be_submit"]):
        submits.setdefault((event.ring, event.id), []).append(event)
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            if half.has_data and half.nr and half.response is not None and half.response.status == wire.OKAY:
                found = submits.get((half.ring.address, half.id), ())
                _asked(
                    judge, half, next((e for e in found if half.taken.tsc < e.tsc < half.response.tsc), None)
                )
    _verified(run, judge)


def _asked(judge: Judge, half: BackHalf, submit: Event | None) -> None:
    assert half.response is not None
    if submit is None:
        gap = judge.gap(BACKEND, half.taken.tsc, half.response.tsc)
        judge.undecided(gap or "what a request asked of the disk was not recorded")
        return
    sectors = sum(extent.sectors for extent in half.segments) if half.segments is not None else None
    whole = submit.nbio != 1 or sectors is None or submit.bytes == sectors * wire.SECTOR_BYTES
    if submit.sector == half.taken.sector and whole:
        judge.holds()
    elif gap := judge.gap(BACKEND, half.taken.tsc, half.response.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "disk",
            f"request id {half.id} is about sector {half.taken.sector}, and the disk is asked for other data",
            bound=[names.taken(half), Bound.to("D", submit, f"{submit.nbio} bios go to the disk")],
            because=[f"D is for R{half.id}: it names its id, before the response"],
            contradiction=f"D asks for {submit.bytes} bytes from sector {submit.sector}",
        )


def _verified(run: History, judge: Judge) -> None:
    fio = run.facts.fio
    if fio is None:
        return
    if not fio.verify_failed:
        judge.holds()
        return
    judge.breaks(
        "verified",
        "the load wrote data and read others back",
        bound=[Bound("V", "fio compares what it read", "fio", 0, "guest", -1, -1, "guest1/fio.json", 0)],
        because=["each block that fio writes has a checksum, and V reads blocks that were written"],
        contradiction="the checksums of V do not fit",
    )


@rule(
    id="R59",
    level="MUST",
    side="both",
    source="blkif.h struct blkif_response; Linux __end_block_io_op, blkif_interrupt",
    obligation="An error of the disk reaches the frontend, whose response has the status that the backend "
    "wrote.",
    needs={"fe_queue", "fe_push", "fe_response", "be_request", "be_io_end", "be_response"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ, **_FAILED)),
    breaks=lambda play: play.io(wire.READ, be_io_end={"error": 10}),
)
def errors_arrive(run: History, judge: Judge) -> None:
    """Compare for each request the ends of its bios, the response and what the frontend took."""
    for ring in run.rings:
        for request in ring.requests:
            front, back = request.front, request.back
            if front is None or back is None or front.completion is None:
                continue
            if back.response is None:
                gap = judge.gap(BACKEND, back.taken.tsc, front.completion.tsc)
                judge.undecided(gap or "the response to a completed request was not recorded")
                continue
            _arrived(judge, run.guest(ring), front, back)


def _arrived(judge: Judge, source: str, front: FrontHalf, back: BackHalf) -> None:
    assert back.response is not None
    assert front.completion is not None
    failed = next((event for event in back.io_ends if event.error), None)
    wrong = None
    if front.completion.status != back.response.status:
        wrong = f"status {back.response.status} is written, and {front.completion.status} arrives"
    elif failed is not None and front.completion.status == wire.OKAY:
        wrong = f"the disk reports error {failed.error}, and the frontend is told that all went well"
    if wrong is None:
        judge.holds()
        return
    begin, end = front.queue.tsc, front.completion.tsc
    if gap := judge.gap(BACKEND, begin, end) or judge.gap(source, begin, end):
        judge.undecided(gap)
        return
    judge.breaks(
        "error",
        f"request id {back.id}: {wrong}",
        bound=[
            names.taken(back),
            *([Bound.to("E", failed, "a bio ends with an error")] if failed is not None else []),
            names.response(back.response),
            Bound.to("C", front.completion, "the frontend completes the request"),
        ],
        because=[f"C is about R{back.id}, because both stand at ring entry {back.index}"],
        contradiction=wrong,
    )
