"""The ring itself: its size and its indices, R18 to R20."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, FrontRing, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_PAGE_BYTES = 4096
_HEADER_BYTES = 64
_REQUEST_BYTES = 112
_LARGEST_ORDER = 4
_RACING = 12
"""More responses than can be under way at once: a thread, a soft and a hard interrupt on 4 CPUs."""


def entries(order: int) -> int:
    """Return the entries of a ring of ``2 ** order`` pages: as many as fit, rounded down to a power of 2."""
    fit = ((_PAGE_BYTES << order) - _HEADER_BYTES) // _REQUEST_BYTES
    return 1 << (fit.bit_length() - 1)


def _signed(difference: int) -> int:
    """Return a difference of two free-running 32-bit indices as a signed number."""
    difference &= wire.INDEX_MASK
    return difference - (1 << 32) if difference >> 31 else difference


@rule(
    id="R18",
    level="MUST",
    side="both",
    source="ring.h __RING_SIZE; blkif.h struct blkif_sring",
    obligation="A ring has as many entries as fit in its pages, rounded down to a power of two.",
    needs={"be_request"},
    also={"fe_queue", "fe_push", "xs_write"},
    obeys=lambda play: play.io(wire.READ),
    breaks=lambda play: play.set(nr_ents=64).io(wire.READ),
)
def ring_size(run: History, judge: Judge) -> None:
    """Compare the size that both sides use with the ring-page-order that the frontend wrote."""
    for ring in run.rings:
        order = run.store.number(paths.front(ring.device, "ring-page-order"), ring.begin) or 0
        if gap := judge.gap(run.guest(ring), run.begin, ring.begin):
            judge.undecided(gap)
            continue
        # A guest may write any number: beyond the largest order nothing fits.
        due = entries(order) if order <= _LARGEST_ORDER else 0
        for bound, size in _sizes(ring):
            if size == due:
                judge.holds()
                continue
            judge.breaks(
                "size",
                f"ring of device {ring.device.vdev} has {size} entries where order {order} allows {due}",
                bound=[bound],
                because=[f"ring-page-order is {order}, and a request has {_REQUEST_BYTES} bytes"],
                contradiction=f"{bound.label} was handled on a ring of {size} entries",
            )


def _sizes(ring: Ring) -> list[tuple[Bound, int]]:
    found = []
    for request in ring.requests:
        if request.front is not None:
            found.append((names.queued(request.front), int(request.front.queue.nr_ents)))
        if request.back is not None:
            found.append((names.taken(request.back), int(request.back.taken.nr_ents)))
    return found


@rule(
    id="R19",
    level="MUST",
    side="frontend",
    source="ring.h RING_FULL, RING_REQUEST_PROD_OVERFLOW; Linux __do_block_io_op",
    obligation="No more requests are outstanding than the ring has entries, and a backend that is told of "
    "more stops.",
    needs={"be_request"},
    also={"fe_queue", "fe_push"},
    obeys=lambda play: play.burst(32),
    breaks=lambda play: play.io(wire.READ, fe_queue={"rsp_cons": 2**32 - 32}),
)
def never_overfull(run: History, judge: Judge) -> None:
    """Look at the indices with which requests were pushed and taken."""
    for ring in run.rings:
        for half in ring.front.halves if ring.front else ():
            outstanding = _signed(half.queue.req_prod_pvt + 1 - half.queue.rsp_cons)
            if outstanding <= half.queue.nr_ents:
                judge.holds()
                continue
            judge.breaks(
                "pushed",
                f"frontend has {outstanding} requests outstanding on a ring of {half.queue.nr_ents} entries",
                bound=[names.queued(half)],
                because=[f"the frontend has taken responses up to {half.queue.rsp_cons}"],
                contradiction=f"it fills ring entry {half.queue.req_prod_pvt}",
            )
        if ring.back is not None:
            _back_overfull(judge, ring.back.halves)


def _back_overfull(judge: Judge, halves: Sequence[BackHalf]) -> None:
    for number, half in enumerate(halves):
        taken = half.taken
        held = _signed(taken.req_cons - taken.rsp_prod_pvt)
        # Responses may be written while the event is: only what is still too much later was too much.
        after = halves[number + 1].taken if number + 1 < len(halves) else None
        told = _signed(taken.s_req_prod - after.rsp_prod_pvt) if after is not None else 0
        if max(held, told) <= taken.nr_ents:
            judge.holds()
            continue
        judge.breaks(
            "taken",
            f"backend goes on with {max(held, told)} requests outstanding on a ring of {taken.nr_ents}",
            bound=[names.taken(half)],
            because=[f"req_prod is {taken.s_req_prod}, rsp_prod_pvt {taken.rsp_prod_pvt} at R{half.id}"],
            contradiction="the backend takes requests instead of stopping",
        )


@rule(
    id="R20",
    level="MUST",
    side="backend",
    source="ring.h RING_PUSH_RESPONSES; Linux make_response, blkif_interrupt",
    obligation="Each response advances rsp_prod by one, never past the requests taken, and indices never "
    "step back.",
    needs={"be_request", "be_discard", "be_other", "be_response"},
    also={"fe_queue", "fe_push", "fe_irq", "fe_response"},
    obeys=lambda play: play.burst(3),
    breaks=lambda play: (play.io(wire.READ), play.io(wire.READ, be_response={"rsp_prod_pvt": 3})),
)
def responses_in_step(run: History, judge: Judge) -> None:
    """Count responses against the producer index, and follow rsp_prod as the frontend sees it."""
    for ring in run.rings:
        if ring.back is not None and ring.back.halves:
            _producer(run, judge, ring.back.halves[0], ring.back.responses)
        if ring.front is not None:
            _consumer(judge, ring.front)


def _producer(run: History, judge: Judge, first: BackHalf, responses: Sequence[Event]) -> None:
    if first.index != first.taken.rsp_prod_pvt:
        judge.undecided("requests were outstanding before the recording began", len(responses))
        return
    # The event comes before the lock of the ring: responses that race may all read the same index, and
    # one that was slow to be recorded an index of later ones.  So only what stays ahead or behind counts.
    behind = [number - _signed(event.rsp_prod_pvt - first.index) for number, event in enumerate(responses)]
    lag = _lasting_lag(behind)
    for number, event in enumerate(responses):
        if gap := judge.gap(BACKEND, first.taken.tsc, event.tsc):
            judge.undecided(gap, len(responses) - number)
            return
        begun = number
        if behind[number] < 0:
            begun = _begun_by(run, responses, event)
        ahead = _signed(event.rsp_prod_pvt - first.index) > begun
        if not ahead and number != lag:
            judge.holds()
            continue
        judge.breaks(
            "producer",
            f"response {number + 1} of the ring finds rsp_prod_pvt at {event.rsp_prod_pvt}",
            bound=[names.response(event)],
            because=[f"{number} responses were written before S{event.id}, from index {first.index} on"],
            contradiction=f"rsp_prod_pvt is {event.rsp_prod_pvt}, not {first.index + number}",
        )
        return


def _lasting_lag(behind: Sequence[int]) -> int | None:
    """Return from which response on the index stays behind for good, or None."""
    start = len(behind)
    while start and behind[start - 1] > 0:
        start -= 1
    return start if len(behind) - start > _RACING else None


def _begun_by(run: History, responses: Sequence[Event], event: Event) -> int:
    """Count the responses that had begun before the CPU of ``event`` recorded anything later."""
    table = run.table
    here = (table.cpu == event.cpu) & (table.source == table.sources.index(event.source))
    later = np.flatnonzero(here & (table.tsc > event.tsc))
    limit = int(table.tsc[later[0]]) if len(later) else run.end
    return sum(1 for other in responses if other.tsc <= limit and other is not event)


def _consumer(judge: Judge, front: FrontRing) -> None:
    # An interrupt after the last request may find the ring taken down: its indices are those of no ring.
    last = max((half.completion.tsc for half in front.halves if half.completion), default=0)
    previous: Event | None = None
    for event in front.looks:
        if event.tsc > max(last, front.halves[-1].queue.tsc):
            return
        ready = _signed(event.s_rsp_prod - event.rsp_cons)
        back = previous is not None and _signed(event.s_rsp_prod - previous.s_rsp_prod) < 0
        if 0 <= ready <= event.nr_ents and not back:
            judge.holds()
        else:
            judge.breaks(
                "consumer",
                f"frontend finds rsp_prod at {event.s_rsp_prod} with rsp_cons at {event.rsp_cons}",
                bound=[Bound.to("I", event, "the frontend looks for responses")],
                because=[
                    f"the ring has {event.nr_ents} entries"
                    + (f", and rsp_prod was {previous.s_rsp_prod} before" if previous else "")
                ],
                contradiction=f"rsp_prod is {event.s_rsp_prod}",
            )
        previous = event
