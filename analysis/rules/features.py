"""What the backend's features allow the frontend, and what needs no permission at all: R11, R13 and R17."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, FrontHalf, Request, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import legal, rule
from blkproof.analysis.sessions import CONNECTED, back_states, enters, missed_of
from blkproof.analysis.verdict import Bound

_KEYS = {
    wire.BARRIER: "feature-barrier",
    wire.FLUSH: "feature-flush-cache",
    wire.DISCARD: "feature-discard",
}
_FLUSHES = {wire.BARRIER, wire.FLUSH}
_REQ_OP = 0xFF
_BECOMES = {0: {wire.READ}, 1: {wire.WRITE, *_FLUSHES}, 2: _FLUSHES}
"""What the block layer's read, write (with REQ_FUA maybe) and flush may become on the ring."""


@legal(
    id="R11",
    side="both",
    source='blkif.h "feature-persistent"',
    obligation="A frontend may keep its grants although the backend does not, and a backend may drop what it "
    "kept without telling.",
    needs={"be_request"},
    also={"be_map", "be_add", "be_add_ret", "be_put", "be_purge", "gt_map", "gt_unmap", "xs_write"},
    obeys=lambda play: (play.io(wire.WRITE), play.purge([100]), play.io(wire.WRITE)),
)
def keeps_on_its_own(run: History, judge: Judge) -> None:
    """Count the grants that the backend dropped, and the rings of which only one side offered to keep any."""
    for ring in run.rings:
        if ring.back is not None:
            emptied = min((t.event.tsc for t in ring.back.teardowns), default=run.end)
            judge.holds(sum(unmap.due and unmap.event.tsc < emptied for unmap in ring.back.unmaps))
            judge.holds(ring.offers in ((True, False), (False, True)))


@rule(
    id="R13",
    level="MUST",
    side="frontend",
    source='blkif.h "feature-barrier", "feature-flush-cache", "feature-discard"; Linux blkif_interrupt',
    obligation="Barriers, flushes and discards, also secure ones, go only to a backend that offers them, and "
    "no flush follows on a response that it is not supported.",
    needs={"be_request", "be_discard"},
    also={"fe_queue", "fe_push", "fe_discard", "fe_response", "xs_write"},
    obeys=lambda play: (play.io(wire.FLUSH, nr=0), play.discard(), play.io(wire.BARRIER, nr=1)),
    breaks=lambda play: play.set(flushes=0).io(wire.FLUSH, nr=0),
)
def only_what_is_offered(run: History, judge: Judge) -> None:
    """Compare every operation with the backend's features, and with what the block layer wanted."""
    for ring in run.rings:
        refused = _refused(ring)
        for request in ring.requests:
            half, front = request.back, request.front
            if half is None or half.taken.event == "be_other":
                continue
            if front is not None and _other_operation(front, half):
                _not_as_wanted(judge, front, half)
            elif half.inner_op not in _KEYS:
                judge.holds()
            elif refused is not None and _insists(request, refused):
                _again(judge, refused, request)
            else:
                _offered(run, judge, ring, half)


def _other_operation(front: FrontHalf, half: BackHalf) -> bool:
    if front.queue.event != "fe_queue":
        return half.inner_op != wire.DISCARD
    return half.inner_op not in _BECOMES.get(front.queue.flags & _REQ_OP, {half.inner_op})


def _not_as_wanted(judge: Judge, front: FrontHalf, half: BackHalf) -> None:
    queue = names.queued(front)
    judge.breaks(
        "other operation",
        f"request id {half.id} is a {wire.operation(half.inner_op)}, not what the block layer wanted",
        bound=[queue, names.taken(half)],
        because=[
            f"{queue.label} and R{half.id} are one request, because both stand at ring entry {half.index}",
            "a read stays a read, a flush is a flush or a barrier, and a write may be each of these two or a "
            "write",
        ],
        contradiction=f"R{half.id} is a {wire.operation(half.inner_op)}",
    )


def _refused(ring: Ring) -> FrontHalf | None:
    """Return the first flush or barrier of which the frontend was told that it is not supported."""
    told = (
        request.front
        for request in ring.requests
        if request.front is not None
        and request.front.completion is not None
        and request.front.completion.status == wire.NOT_SUPPORTED
        and request.front.completion.op in _FLUSHES
    )
    return min(told, key=lambda half: half.completion.tsc if half.completion else 0, default=None)


def _insists(request: Request, refused: FrontHalf) -> bool:
    assert refused.completion is not None
    front, back = request.front, request.back
    # Discards that wait in the block layer are still sent; flushes are stopped as they are queued.
    return (
        front is not None
        and back is not None
        and back.op in _FLUSHES
        and front.queue.tsc > refused.completion.tsc
    )


def _again(judge: Judge, refused: FrontHalf, request: Request) -> None:
    assert refused.completion is not None
    assert request.front is not None
    assert request.back is not None
    queue = names.queued(request.front)
    judge.breaks(
        "insists",
        f"frontend queues a {wire.operation(request.back.op)} though one was not supported",
        bound=[
            Bound.to("N", refused.completion, "the frontend learns that a flush is not supported"),
            queue,
        ],
        because=[f"N < {queue.label}, on the same ring"],
        contradiction=f"{queue.label} is a {wire.operation(request.back.op)}",
    )


def _offered(run: History, judge: Judge, ring: Ring, half: BackHalf) -> None:
    key = _KEYS[half.inner_op]
    secure = half.taken.event == "be_discard" and half.taken.flag & wire.DISCARD_SECURE
    what = f"{'secure ' if secure else ''}{wire.operation(half.inner_op)}"
    for wanted in (key, "discard-secure") if secure else (key,):
        write = run.store.at(paths.back(ring.device, wanted), ring.begin)
        if run.store.number(paths.back(ring.device, wanted), ring.begin):
            continue
        gap = missed_of(judge, BACKEND, run, ring.begin)
        if gap or ring.device not in run.store.devices:
            judge.undecided(gap or "which device the ring belongs to is not known")
            return
        judge.breaks(
            "not offered",
            f"request id {half.id} is a {what}, and the backend offers none",
            bound=[
                *([names.written("K", write.event)] if write and write.event else []),
                names.taken(half),
            ],
            because=[f"when the ring was first used, {wanted} was {'0' if write else 'not there'}"],
            contradiction=f"R{half.id} needs {wanted} = 1",
        )
        return
    judge.holds()


@rule(
    id="R17",
    level="SHOULD",
    side="backend",
    source='blkif.h note 4, "discard-granularity", "discard-alignment"; Linux xen_blkbk_discard',
    obligation="A backend tells both discard-granularity and discard-alignment, or neither.",
    needs={"xs_write"},
    obeys=lambda play: play.connect(),
    breaks=lambda play: play.connect(skip={"discard-alignment"}),
)
def discard_told_in_full(run: History, judge: Judge) -> None:
    """Look at both keys when the backend connects."""
    for device in run.store.devices:
        for state in enters(back_states(run, device), CONNECTED):
            told = [
                run.store.at(paths.back(device, key), state.tsc)
                for key in ("discard-granularity", "discard-alignment")
            ]
            if (told[0] is None) == (told[1] is None):
                judge.holds()
            elif gap := missed_of(judge, BACKEND, run, state.tsc):
                judge.undecided(gap)
            else:
                judge.breaks(
                    "half",
                    f"backend of device {device.vdev} tells only one of discard-granularity and -alignment",
                    bound=[
                        *(names.written("K", write.event) for write in told if write and write.event),
                        names.written("S", state.event),
                    ],
                    because=["a frontend that misses one of them has to guess it"],
                    contradiction="at S only one of them was there",
                )
