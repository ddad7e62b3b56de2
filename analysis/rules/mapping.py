"""What happens when a grant can't be mapped: R51."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, MapCall
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import UNMAPS_IN


@rule(
    id="R51",
    level="MUST",
    side="backend",
    source="Linux xen_blkbk_map, dispatch_rw_block_io; XSA-365",
    obligation="When a grant can't be mapped, the request fails without reaching the disk, and only what was "
    "mapped is unmapped.",
    needs={"be_request", "be_map", "be_map_ret", "gt_map", "be_response"},
    also={"be_submit", *UNMAPS_IN},
    obeys=lambda play: play.set(bad_grefs={101}).io(wire.WRITE, nr=3),
    breaks=lambda play: play.set(map_status=-3).io(wire.WRITE),
)
def failure_is_told(run: History, judge: Judge) -> None:
    """Look at the result of every mapping, and follow those that failed."""
    submitted = {(event.ring, event.id, event.tsc) for event in run.table.rows(["be_submit"])}
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            for call in half.calls:
                if call.end is None:
                    gap = judge.gap(BACKEND, call.start.tsc, run.end)
                    judge.undecided(gap or "the recording ended while grants were being mapped")
                elif call.failed:
                    _failed(judge, half, call, submitted)
                else:
                    judge.holds()
    _never_mapped(run, judge)


def _failed(judge: Judge, half: BackHalf, call: MapCall, submitted: set[tuple[int, int, int]]) -> None:
    assert call.end is not None
    op = call.failed[0]
    end = half.response.tsc if half.response else call.end.tsc
    wrong = None
    if call.end.rc == 0:
        wrong = "the backend goes on as if all of them were mapped", Bound.to("E", call.end, "mapping ended")
    elif half.response is not None and half.response.status == wire.OKAY:
        wrong = "the frontend is told that all went well", names.response(half.response)
    elif any(
        (address, number) == (half.ring.address, half.id) and call.end.tsc <= tsc <= end
        for address, number, tsc in submitted
    ):
        wrong = "it is handed to the disk", Bound.to("E", call.end, "mapping ended")
    if wrong is None:
        judge.holds()
    elif gap := judge.gap(BACKEND, half.taken.tsc, end):
        judge.undecided(gap)
    else:
        judge.breaks(
            wrong[0],
            f"grant {op.gref} of request id {half.id} can't be mapped, and {wrong[0]}",
            bound=[names.taken(half), Bound.to("M", call.start, "the backend begins to map"), wrong[1]],
            because=[
                f"Xen refused grant {op.gref} with status {op.status}",
                f"M maps the pages of R{half.id}",
            ],
            contradiction=wrong[0],
        )


def _never_mapped(run: History, judge: Judge) -> None:
    """Look for unmaps of what was refused: Xen gave no handle for it."""
    refused = {
        (op.host, op.handle): call
        for ring in run.rings
        for half in (ring.back.halves if ring.back else ())
        for call in half.calls
        for op in call.failed
    }
    if not refused:
        return
    for event in run.table.rows(UNMAPS_IN):
        for op in wire.unmap_ops(event):
            call = refused.get((op.host, op.handle))
            if call is None or op.status == wire.OKAY:
                continue
            if gap := judge.gap(BACKEND, call.start.tsc, event.tsc):
                judge.undecided(gap)
                continue
            judge.breaks(
                "unmapped",
                f"handle {op.handle} is unmapped although mapping it had failed",
                bound=[
                    Bound.to("M", call.start, "the backend begins to map"),
                    Bound.to("U", event, f"handle {op.handle} is unmapped"),
                ],
                because=["Xen refused to map at that address in M, and refused the unmap"],
                contradiction="U unmaps what was never mapped",
            )
