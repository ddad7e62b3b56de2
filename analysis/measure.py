"""Measures a history: figures and curves, no judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from blkproof.analysis import observers, wire
from blkproof.analysis.entities import Request, Ring
from blkproof.analysis.history import History
from blkproof.analysis.metrics import STAGES, Metrics, Steps


def measure(run: History) -> Metrics:
    """Return the figures of all rings of ``run`` together."""
    halves = [half for ring in run.rings if ring.back for half in ring.back.halves]
    kinds = Counter(half.inner_op for half in halves)
    lookups = [lookup for half in halves for call in half.calls for lookup in call.lookups]
    tree = _tree(run)
    outstanding = _outstanding(run.rings)
    sizes = [int(half.taken.nr_ents) for half in halves]
    begin, end = run.load or (run.begin, run.end)
    parts = observers.by_interval(run)
    return Metrics(
        requests=len(halves),
        reads=kinds[wire.READ],
        writes=kinds[wire.WRITE],
        flushes=kinds[wire.FLUSH] + kinds[wire.BARRIER],
        discards=kinds[wire.DISCARD],
        indirect=sum(half.indirect for half in halves),
        errors=sum(half.response is not None and half.response.status != wire.OKAY for half in halves),
        segments=dict(sorted(Counter(half.nr for half in halves if half.has_data and half.nr).items())),
        maps=len(run.mappings),
        unmaps=sum(mapping.unmapped is not None for mapping in run.mappings),
        lookups=len(lookups),
        hits=sum(lookup.hit for lookup in lookups),
        notifications=run.table.count("ev_notify"),
        tree_peak=max(tree.value, default=0),
        tree_cap=run.cap,
        nr_ents=max(sizes, default=None),
        window_ticks=end - begin,
        window_seconds=(end - begin) / run.facts.tsc_hz if run.facts.tsc_hz else None,
        iops=run.facts.fio.iops if run.facts.fio else None,
        stages=_stages(run.rings),
        tree=tree,
        outstanding=outstanding,
        observed=observers.observed(run, parts),
        intervals=parts,
    )


def _tree(run: History) -> Steps:
    """Return the size of all trees together over time."""
    changes = sorted(
        (event.tsc, number, size)
        for number, ring in enumerate(run.rings)
        if ring.back
        for event, size in ring.back.sizes
    )
    now: dict[int, int] = {}
    steps: list[tuple[int, int]] = []
    for tsc, number, size in changes:
        now[number] = size
        total = sum(now.values())
        if not steps or steps[-1][1] != total:
            steps.append((tsc, total))
    return Steps([tsc for tsc, _ in steps], [total for _, total in steps])


def _outstanding(rings: Iterable[Ring]) -> Steps:
    """Return the requests between push and completion over time; without a frontend, with the backend."""
    changes: list[tuple[int, int]] = []
    for ring in rings:
        for request in ring.requests:
            begin, end = _life(request)
            if begin is not None:
                changes.append((begin, 1))
            if begin is not None and end is not None:
                changes.append((end, -1))
    changes.sort()
    total, values = 0, []
    for _, step in changes:
        total += step
        values.append(total)
    return Steps([tsc for tsc, _ in changes], values)


def _life(request: Request) -> tuple[int | None, int | None]:
    front, back = request.front, request.back
    if front is not None:
        done = front.completion or front.recycled
        return front.queue.tsc, done.tsc if done else None
    if back is not None:
        return back.taken.tsc, back.response.tsc if back.response else None
    return None, None


def _stages(rings: Iterable[Ring]) -> dict[str, list[int]]:
    """Return the ticks that each wholly recorded request spent in each stage."""
    stages: dict[str, list[int]] = {stage: [] for stage in STAGES}
    for ring in rings:
        for request in ring.requests:
            moments = _moments(request)
            if moments is None:
                continue
            for stage, begin, end in zip(STAGES, moments, moments[1:], strict=False):
                stages[stage].append(end - begin)
            stages["total"].append(moments[-1] - moments[0])
    return stages


def _moments(request: Request) -> tuple[int, ...] | None:
    """Return when a request was queued, taken, mapped, done by the disk, answered and completed."""
    front, back = request.front, request.back
    if front is None or back is None or not back.calls or not back.io_ends:
        return None
    mapped = back.calls[-1].end
    if mapped is None or back.response is None or front.completion is None:
        return None
    ended = back.io_ends[-1].tsc
    return front.queue.tsc, back.taken.tsc, mapped.tsc, ended, back.response.tsc, front.completion.tsc
