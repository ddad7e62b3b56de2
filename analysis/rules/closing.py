"""How the backend lets go of a ring: R60."""

from __future__ import annotations

from blkproof.analysis import names
from blkproof.analysis.entities import BackHalf, BackRing, Mapping, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import UNMAPS_IN, Event


@rule(
    id="R60",
    level="MUST",
    side="backend",
    source="Linux xen_blkif_disconnect, xen_blkif_schedule; XSA-350",
    obligation="A ring is unmapped only after its thread has ended, once, and every request that it took is "
    "answered; all that it kept is unmapped, too, before the device is closed.",
    needs={"be_request", "be_response", "be_thread_start", "be_thread_stop"},
    also={"gt_unmap_ring", "xs_switch", "be_map", "be_map_ret", "be_add", "be_add_ret", "gt_map", *UNMAPS_IN},
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
        unmapped = _unmapped(run, ring, ring.back)
        end = unmapped or closed
        stopped = ring.back.stopped
        if end is None or (stopped is None and closed is None):
            gap = judge.gap(BACKEND, last.taken.tsc, run.end)
            judge.undecided(gap or "the recording ended before the backend had closed the device")
            continue
        late = next((half for half in ring.back.halves if _later(half, end)), None)
        if late is not None and unmapped is None:
            # Linux keeps a ring that has requests in flight, for a later try.
            late = None
        kept = _kept(ring.back, closed) if closed is not None and late is None else None
        again = _again(run, ring.back, end)
        if (late, kept, again) == (None, None, None) and stopped is not None and stopped.tsc < end.tsc:
            judge.holds()
        elif gap := judge.gap(BACKEND, ring.back.halves[0].taken.tsc, run.end):
            judge.undecided(gap)
        elif late is not None:
            _answered_late(judge, late, end)
        elif again is not None:
            _ended_again(judge, *again)
        elif kept is not None and closed is not None and stopped is not None:
            _left_mapped(judge, kept, stopped, closed)
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


def _kept(back: BackRing, closed: Event) -> Mapping | None:
    """Return a grant that the ring kept and that was still mapped when the device was closed."""
    if any(half.response is None or half.response.tsc > closed.tsc for half in back.halves):
        return None
    for mapping in (mapping for half in back.halves for mapping in half.mappings):
        gone = mapping.unmapped is not None and mapping.unmapped.tsc < closed.tsc
        if mapping.entry is not None and not gone and not mapping.hidden:
            return mapping
    return None


def _again(run: History, back: BackRing, end: Event) -> tuple[Event, Event] | None:
    """Return the ends of a ring's thread if there are two of the same start."""
    stops: list[Event] = []
    for event in run.table.rows(["be_thread_start", "be_thread_stop"]):
        if event.ring == back.address and event.tsc < end.tsc:
            stops = [] if event.event == "be_thread_start" else [*stops, event]
    return (stops[0], stops[1]) if len(stops) > 1 and stops[0].tsc > back.halves[0].taken.tsc else None


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


def _ended_again(judge: Judge, first: Event, second: Event) -> None:
    judge.breaks(
        "thread ended twice",
        "the thread of a ring ends twice",
        bound=[Bound.to("T", first, "the ring's thread ends"), Bound.to("U", second, "it ends again")],
        because=["it did not start between T and U"],
        contradiction="U ends what had ended at T",
    )


def _left_mapped(judge: Judge, mapping: Mapping, stopped: Event, closed: Event) -> None:
    judge.breaks(
        "kept grant left",
        f"the backend closes the device with grant {mapping.op.gref}, which it kept, still mapped",
        bound=[
            names.mapped(mapping),
            Bound.to("T", stopped, "the ring's thread ends"),
            Bound.to("X", closed, "the backend closes the device"),
        ],
        because=["all requests are answered before X, so that nothing needs the grant any more"],
        contradiction=f"handle {mapping.op.handle} of M{mapping.op.gref} is not unmapped before X",
    )
