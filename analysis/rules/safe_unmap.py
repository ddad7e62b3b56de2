"""Pages are unmapped only when nobody else holds them, and whoever asked is told once: R54 to R57."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from blkproof.analysis import names, wire
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import legal, rule, undecidable
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_ALONE: Final = 1
"""References to a page that only the backend holds."""
_IDLE: Final = 0
"""pid of what runs on a CPU without a thread: each CPU has its own."""


@rule(
    id="R54",
    level="MUST",
    side="backend",
    source="Linux __gnttab_unmap_refs_async, page_count",
    obligation="The backend unmaps a page only when nobody else holds it, and tries again until then.",
    needs={"be_request", "be_map", "be_map_ret", "gt_map", "gt_unmap"},
    also={"gt_unmap_few"},
    obeys=lambda play: (play.io(wire.WRITE), play.set(back_keeps=False).io(wire.READ)),
    breaks=lambda play: play.set(back_keeps=False, page_references=2).io(wire.READ),
)
def nobody_holds_it(run: History, judge: Judge) -> None:
    """Look at the references to each page of the block backend at its unmap; of a call, to the first 11."""
    for unmapping in run.unmappings:
        event = unmapping.event
        if unmapping.mapping is None or event.event not in ("gt_unmap", "gt_unmap_few"):
            continue
        references = event.refs[wire.unmap_ops(event).index(unmapping.op)]
        if references <= _ALONE:
            judge.holds()
            continue
        mapping = unmapping.mapping
        judge.breaks(
            "held",
            f"the page of grant {mapping.op.gref} is unmapped while it has {references} references",
            bound=[names.mapped(mapping), Bound.to("U", event, f"handle {unmapping.op.handle} is unmapped")],
            because=[
                f"U unmaps the page of M{mapping.op.gref}, because the handle and the address are the same",
                "one reference is the backend's own",
            ],
            contradiction=f"the page had {references} references at U",
        )


@dataclass(slots=True, eq=False)
class _Try:
    """One try to unmap the pages of an ``item``, and what came of it."""

    event: Event
    unmapped: Event | None = None
    retried: Event | None = None


@rule(
    id="R55",
    level="MUST",
    side="backend",
    source="Linux gnttab_unmap_refs_async, gnttab_unmap_work",
    obligation="Whoever asked for pages to be unmapped is told once, after they were: each try unmaps all of "
    "them or is tried again.",
    needs={"gt_unmap_async", "gt_unmap", "gt_unmap_retry"},
    also={"be_request", "be_map", "be_map_ret", "gt_map"},
    obeys=lambda play: (play.io(wire.WRITE), play.set(back_keeps=False).io(wire.READ)),
    breaks=lambda play: play.set(back_keeps=False).io(
        wire.READ, skip={"gt_unmap", "gt_put_free", "xen_unmap", "be_response"}
    ),
)
def told_once(run: History, judge: Judge) -> None:
    """Follow every try to its unmap or to the next try."""
    tries, strays = _tries(run)
    for attempt in tries:
        if attempt.unmapped is not None or attempt.retried is not None:
            judge.holds()
            continue
        if attempt.event.n == 0:
            # Of what is lost, Xen only misses what unmaps something.
            continue
        gap = judge.gap(BACKEND, attempt.event.tsc, run.end)
        if gap or not (run.facts.ended == "stall" or _closed(run, attempt.event.tsc)):
            judge.undecided(gap or "the recording ended before the pages were unmapped")
            continue
        judge.breaks(
            "forgotten",
            f"{attempt.event.n} pages were to be unmapped, and neither were they nor was it tried again",
            bound=[_tried(attempt.event)],
            because=["a try unmaps at once, or is tried again later", "recording went on to the end"],
            contradiction="nothing followed T",
        )
    for attempt, retry in strays:
        assert attempt.unmapped is not None
        if gap := judge.gap(BACKEND, attempt.event.tsc, retry.tsc):
            judge.undecided(gap)
            continue
        judge.breaks(
            "again",
            f"{retry.n} pages are to be unmapped a second time",
            bound=[
                Bound.to("U", attempt.unmapped, "the pages are unmapped"),
                Bound.to("W", retry, "unmapping them is tried again"),
            ],
            because=["whoever asked for it was told at U, and nobody asked again between U and W"],
            contradiction="W tries once more",
        )


def _tried(event: Event) -> Bound:
    return Bound.to("T", event, f"unmapping {event.n} pages is tried, {event.age} tries before")


def _closed(run: History, after: int) -> bool:
    return any(run.closed(ring.device, after) is not None for ring in run.rings)


def _tries(run: History) -> tuple[list[_Try], list[tuple[_Try, Event]]]:
    """Return every try, and those that were tried again although they had unmapped pages of the disk.

    A try and its unmap are one call, which only an interrupt with whole calls of its own may part: so an
    unmap belongs to the last open try of its thread.
    """
    ours = {(u.event.file, u.event.offset) for u in run.unmappings}
    tries: list[_Try] = []
    strays: list[tuple[_Try, Event]] = []
    under_way: defaultdict[tuple[int, int], list[_Try]] = defaultdict(list)
    last: dict[int, _Try] = {}
    for event in run.table.rows(["gt_unmap_async", "gt_unmap", "gt_unmap_retry"]):
        stack = under_way[event.pid, event.cpu if event.pid == _IDLE else -1]
        if event.event == "gt_unmap_async":
            attempt = last[event.item] = _Try(event)
            tries.append(attempt)
            stack.append(attempt)
        elif event.event == "gt_unmap":
            # Other drivers of the same kernel unmap without a try, and a try that waits has no unmap.
            while stack and stack[-1].retried is not None:
                stack.pop()
            if stack and stack[-1].event.n == event.n:
                stack.pop().unmapped = event
        elif (attempt_before := last.get(event.item)) is not None:
            attempt_before.retried = event
            done = attempt_before.unmapped
            if done is not None and (done.file, done.offset) in ours:
                strays.append((attempt_before, event))
    return tries, strays


undecidable(
    id="R56",
    level="LINUX",
    side="backend",
    source="Linux xen_blkbk_unmap_and_respond_callback, clear_foreign_p2m_mapping",
    obligation="A backend whose unmap as a whole fails stops at once.",
    reason="the result of the whole call is not recorded, and Linux crashes on it: such a run ends as a "
    "crash of dom0, and a single operation that Xen refused is R52's",
)


@legal(
    id="R57",
    side="backend",
    source="Linux xen_blkbk_unmap_and_respond, gnttab_unmap_refs",
    obligation="A backend that keeps all grants of a request may still ask Xen to unmap none.",
    needs={"gt_unmap"},
    obeys=lambda play: play.set(counts_none=True).io(wire.WRITE),
)
def unmaps_none(run: History, judge: Judge) -> None:
    """Count the calls."""
    judge.holds(sum(1 for event in run.table.rows(["gt_unmap"]) if event.n == 0))
