"""How the backend thins out its tree of persistent grants: R45."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Final

from blkproof.analysis import wire
from blkproof.analysis.entities import BackRing
from blkproof.analysis.facts import BACKEND, BACKEND_MODULE
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound

_SHARE: Final = 5
"""LRU_PERCENT_CLEAN: how much of a full tree is purged at once."""
_INTERVAL_SECONDS: Final = 0.1
"""LRU_INTERVAL."""
_TOLERANCE: Final = 0.5
"""A clock that ticks late may tick fast for a while."""
_UNUSED_SECONDS: Final = 60
"""Default of persistent_grant_unused_seconds."""


@rule(
    id="R45",
    level="QUAL",
    side="backend",
    source="Linux purge_persistent_gnt, xen_blkif_schedule",
    obligation="The backend purges grants that were long unused, and of a full tree a twentieth, each 100 ms "
    "at most.",
    needs={"be_purge", "be_request", "be_put", "be_get_ret", "be_add_ret", *("gt_map", "gt_unmap")},
    also={"gt_unmap_few", "be_map", "be_map_ret", "be_get", "be_add"},
    obeys=lambda play: (play.set(cap=1, tsc_hz=1e9).io(wire.WRITE), play.purge([])),
    breaks=lambda play: (play.set(tsc_hz=1e9).io(wire.WRITE), play.purge([100])),
)
def purges_little(run: History, judge: Judge) -> None:
    """Count what each scan purged, without the grants that nobody had used for long."""
    hertz = run.facts.tsc_hz
    for ring in run.rings:
        if ring.back is None or hertz is None:
            continue
        _amounts(run, judge, ring.back, hertz)
        _pace(judge, ring.back, hertz)


def _amounts(run: History, judge: Judge, ring: BackRing, hertz: float) -> None:
    scans = [event.tsc for event in ring.purges]
    unused = run.facts.number(BACKEND, BACKEND_MODULE, "persistent_grant_unused_seconds")
    long_ago = (_UNUSED_SECONDS if unused is None else unused) * hertz * _TOLERANCE
    end = min((teardown.event.tsc for teardown in ring.teardowns), default=run.end)
    purged: Counter[int] = Counter()
    for unmap in ring.unmaps:
        number = bisect_right(scans, unmap.event.tsc) - 1
        if unmap.due and number >= 0 and unmap.event.tsc < end:
            recent = not long_ago or scans[number] - unmap.seen.since < long_ago
            purged[number] += recent
    for number, scan in enumerate(ring.purges):
        due = _due(scan.pgc, run.cap)
        # Two scans may share what the later of their unmaps shows.
        if purged[number] <= 2 * due:
            judge.holds()
        elif gap := judge.gap(BACKEND, 0, scan.tsc):
            judge.undecided(gap)
        else:
            judge.breaks(
                "too many",
                f"{purged[number]} grants are purged that were in use a short while ago",
                bound=[Bound.to("P", scan, f"the backend scans its tree of {scan.pgc} grants")],
                because=[f"max_persistent_grants is {run.cap}, so P has to purge {due} of these at most"],
                contradiction=f"{purged[number]} are unmapped after P",
            )


def _due(size: int, cap: int | None) -> int:
    """Return how many recently used grants a scan of a tree of ``size`` may purge."""
    if cap is None:
        return size
    return 0 if size < cap else min(size, size - cap + cap // 100 * _SHARE)


def _pace(judge: Judge, ring: BackRing, hertz: float) -> None:
    least = _INTERVAL_SECONDS * hertz * _TOLERANCE
    for before, scan in zip(ring.purges, ring.purges[1:], strict=False):
        if scan.tsc - before.tsc >= least:
            judge.holds()
            continue
        judge.breaks(
            "too often",
            f"the backend scans its tree after {(scan.tsc - before.tsc) / hertz * 1000:.1f} ms again",
            bound=[Bound.to("A", before, "a scan"), Bound.to("B", scan, "the next scan")],
            because=["a scan costs time, and is due each 100 ms"],
            contradiction="B follows A too soon",
        )
