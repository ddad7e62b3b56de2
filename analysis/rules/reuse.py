"""In which order the frontend takes grants again that the backend kept: R46.

Linux's frontend has one list per ring: grants that the backend still maps are put to its head, the others to
its tail, so that the former come first, and the latest of them before all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blkproof.analysis import names
from blkproof.analysis.entities import Ending, FrontHalf, FrontRing
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound, Level
from blkproof.traces.events import PUSHED_IN

_RESERVED = 8
"""GNTTAB_NR_RESERVED_ENTRIES: references that belong to the toolstack."""
_Step = tuple[int, FrontHalf | Ending, bool]
"""When, what, and whether a request is completed (else it is queued)."""


@rule(
    id="R46",
    level="QUAL",
    side="frontend",
    source="Linux blkif_completion, get_free_grant, blkif_queue_rw_req, commit 6c7678674014",
    obligation="Grants that the backend kept are used again before new ones are given, the latest first, and "
    "the frontend knows their number.",
    needs={"fe_queue", "fe_push", "fe_response", "gt_grant", "gt_try_end", "gt_put_free"},
    also={*PUSHED_IN},
    obeys=lambda play: (play.burst(3), play.purge([100]), play.recall(), play.io(nr=20)),
    breaks=lambda play: (play.burst(2), play.set(fifo=True).io()),
)
def latest_first(run: History, judge: Judge) -> None:
    """Keep the frontend's list as it does, and compare it with every request."""
    purged: dict[str, list[Ending]] = {}
    for ending in run.purged:
        purged.setdefault(ending.event.source, []).append(ending)
    for ring in run.rings:
        if ring.front is not None:
            _replay(run, judge, ring.front, purged.get(ring.front.source, []))


def _replay(run: History, judge: Judge, front: FrontRing, purged: list[Ending]) -> None:
    begin = min(run.begin, front.halves[0].queue.tsc)
    kept: list[int] = []
    if front.halves[0].index:
        judge.undecided("requests were made before the recording began", len(front.halves))
        return
    for number, (tsc, what, completed) in enumerate(_steps(front, purged)):
        if gap := judge.gap(front.source, begin, _until(tsc, what, completed)):
            judge.undecided(gap, max(1, len(front.halves) - number))
            return
        if isinstance(what, Ending):
            if what.freed is not None and what.event.ref in kept:
                kept.remove(what.event.ref)
        elif completed:
            kept += [ending.event.ref for ending in what.endings if ending.freed is None]
        elif what.push is not None:
            wanted = what.grefs
            if wanted is None:
                judge.undecided("not all grants of a request were recorded", len(front.halves) - number)
                return
            _takes(judge, what, wanted, kept)


def _until(tsc: int, what: FrontHalf | Ending, completed: bool) -> int:
    """Return when a step is over: a request takes grants until its push, and gives them back in the end."""
    if isinstance(what, Ending):
        return tsc
    if completed:
        return max((ending.event.tsc for ending in what.endings), default=tsc)
    return tsc if what.push is None else what.push.tsc


def _steps(front: FrontRing, purged: list[Ending]) -> Iterator[_Step]:
    steps: list[_Step] = [(half.queue.tsc, half, False) for half in front.halves]
    steps += [(half.completion.tsc, half, True) for half in front.halves if half.completion is not None]
    last = front.halves[-1].queue.tsc
    steps += [(ending.event.tsc, ending, False) for ending in purged if ending.event.tsc < last]
    yield from sorted(steps, key=lambda step: step[0])


def _takes(judge: Judge, half: FrontHalf, wanted: Sequence[int], kept: list[int]) -> None:
    """Compare what a request takes with the list, and take it from there."""
    fresh = [grant.event.ref for grant in half.grants]
    again = [gref for gref in wanted if gref in kept]
    due = kept[::-1][: len(wanted)]
    reserved = next((gref for gref in wanted if gref < _RESERVED), None)
    if reserved is not None:
        _breaks(judge, half, "reserved", f"names the reserved grant {reserved}", "MUST")
    elif half.queue.pgc != len(kept):
        _breaks(judge, half, "count", f"finds {half.queue.pgc} kept grants where {len(kept)} are", "MUST")
    elif len(again) < min(len(kept), len(wanted)):
        _breaks(judge, half, "new ones", f"gives {len(fresh)} new grants with {len(kept)} kept ones", "MUST")
    elif again != due:
        one, other = next(pair for pair in zip(again, due, strict=True) if pair[0] != pair[1])
        _breaks(judge, half, "order", f"takes kept grant {one} where {other} is the latest", None)
    else:
        judge.holds()
    for gref in again:
        if gref in kept:
            kept.remove(gref)


def _breaks(judge: Judge, half: FrontHalf, kind: str, what: str, level: Level | None) -> None:
    assert half.push is not None
    judge.breaks(
        kind,
        f"request id {half.id} {what}",
        level=level,
        bound=[
            names.queued(half),
            Bound.to("P", half.push, f"request id {half.id} is put into ring entry {half.index}"),
        ],
        because=["kept grants are those that the frontend could not end when their requests were completed"],
        contradiction=f"it {what}",
    )
