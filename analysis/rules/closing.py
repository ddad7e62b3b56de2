"""How the backend lets go of a ring: R60."""

from __future__ import annotations

from blkproof.analysis import names
from blkproof.analysis.entities import BackHalf, BackRing, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event


@rule(
    id="R60",
    level="MUST",
    side="backend",
    source="Linux xen_blkif_disconnect, xen_blkif_schedule",
    obligation="A ring is unmapped only after its thread has ended and every request that it took is "
    "answered, and all of that comes before the device is closed.",
    needs={"be_request", "be_response", "be_thread_stop"},
    also={"gt_unmap_ring", "xs_switch"},
    obeys=lambda play: (play.io(), play.close()),
    breaks=lambda play: (play.io(), play.close(skip={"be_thread_stop"})),
)
def thread_ends_first(run: History, judge: Judge) -> None:
    """Look at the end of every ring."""
    for ring in run.rings:
        if ring.back is None or not ring.back.halves:
            continue
        last = ring.back.halves[-1]
        closed = run.closed(ring.device, last.taken.tsc)
        end = _unmapped(run, ring, ring.back) or closed
        stopped = ring.back.stopped
        if end is None or (stopped is None and closed is None):
            gap = judge.gap(BACKEND, last.taken.tsc, run.end)
            judge.undecided(gap or "the recording ended before the backend had closed the device")
            continue
        late = next((half for half in ring.back.halves if _later(half, end)), None)
        if late is None and stopped is not None and stopped.tsc < end.tsc:
            judge.holds()
        elif gap := judge.gap(BACKEND, ring.back.halves[0].taken.tsc, run.end):
            judge.undecided(gap)
        elif late is not None:
            _answered_late(judge, late, end)
        else:
            _not_stopped(judge, stopped, end)


def _unmapped(run: History, ring: Ring, back: BackRing) -> Event | None:
    """Return the earliest unmap that may be this ring's, None if there was none.

    An unmap names its device only, which may have several rings.  If each ring's thread ends before the
    ring is unmapped, then the n-th thread to end does so before the n-th unmap, whichever ring that is of.
    """
    node = f"backend/vbd/{ring.device.domid}/{ring.device.vdev}"
    begin = back.halves[0].taken.tsc
    unmaps = [e for e in run.table.rows(["gt_unmap_ring"]) if e.node == node and e.tsc > begin]
    others = {it.back.address for it in run.rings if it.back and it.device != ring.device}
    ended = back.stopped.tsc if back.stopped else run.end
    before = sum(begin < e.tsc < ended and e.ring not in others for e in run.table.rows(["be_thread_stop"]))
    return unmaps[before] if before < len(unmaps) else None


def _later(half: BackHalf, end: Event) -> bool:
    return half.taken.tsc < end.tsc and (half.response is None or half.response.tsc > end.tsc)


def _answered_late(judge: Judge, half: BackHalf, end: Event) -> None:
    bound = [names.taken(half), Bound.to("E", end, "the backend lets go of the ring")]
    then = "it is never answered"
    if half.response is not None:
        bound.append(names.response(half.response))
        then = f"S{half.id} comes only after E"
    judge.breaks(
        "request left",
        f"request id {half.id} is not answered when the backend lets go of its ring",
        bound=bound,
        because=[f"R{half.id} < E, so it has to be answered before E"],
        contradiction=then,
    )


def _not_stopped(judge: Judge, stopped: Event | None, end: Event) -> None:
    bound = [Bound.to("E", end, "the backend lets go of the ring")]
    if stopped is not None:
        bound.append(Bound.to("T", stopped, "the ring's thread ends"))
    judge.breaks(
        "thread left",
        "the backend lets go of a ring whose thread still runs",
        bound=bound,
        because=["the thread reads requests from the ring as long as it runs"],
        contradiction="E < T" if stopped is not None else "the thread never ends",
    )
