"""Three observers that share no code count the same things: the frontend's kernel, the backend's, and Xen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blkproof.analysis.entities import Device, Grant, Mapping
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.intervals import intervals, totals
from blkproof.analysis.metrics import Interval, Observed
from blkproof.traces.gnttab import GrantDump


def by_interval(run: History) -> tuple[Interval, ...]:
    """Return the maps and unmaps between the harness' marks, if all three observers left a recording."""
    return intervals(run) if _all_recorded(run) else ()


def observed(run: History, parts: Sequence[Interval]) -> tuple[Observed, ...]:
    """Return what could be counted by more than one observer, of ``parts`` the sums."""
    counts = [*_requests(run)]
    if parts:
        mapped, unmapped = totals(parts)
        ended = all(grant.ended is not None for grant in (*run.grants, *run.ring_pages))
        # A grant that the frontend has ended was unmapped as often as it was mapped.
        counts += [mapped, replace(unmapped, frontend=mapped.frontend if ended else None)]
        counts += _at_rest(run)
        counts += _at_end(run)
    return tuple(counts)


def acquit(run: History) -> History:
    """Take back the losses of map and unmap events that Xen, who saw all of them, does not miss.

    A probe that could not run counts its misses, not whose they were: the network backend of the same
    kernel maps grants too.  When Xen recorded as many maps of the guests' grants as the events tell, none
    of theirs is missing.
    """
    if any(window.source == "xen" for window in run.lost) or not _all_recorded(run):
        return run
    mapped, unmapped = totals(by_interval(run))
    sound = ({"gt_map"} if mapped.backend == mapped.xen else set()) | (
        {"gt_unmap", "gt_unmap_many"} if unmapped.backend == unmapped.xen else set()
    )
    lost = tuple(window for window in run.lost if window.source != BACKEND or window.event not in sound)
    return replace(run, lost=lost)


def _all_recorded(run: History) -> bool:
    """Tell whether Xen, the backend's kernel and all frontends' kernels left a recording."""
    return run.table.probes.keys() >= {BACKEND, "xen", *run.facts.domids}


def _requests(run: History) -> tuple[Observed, Observed]:
    in_front = any(source in run.facts.domids for source in run.table.probes)
    # What was in flight when a ring was lost, the backend may have taken and answered or not.
    in_front = in_front and not any(run.in_flight(free) for free in run.table.rows(["fe_free"]))
    in_back = BACKEND in run.table.probes
    fronts = [half for ring in run.rings if ring.front for half in ring.front.halves]
    backs = sum(len(ring.back.halves) for ring in run.rings if ring.back)
    answers = sum(len(ring.back.responses) for ring in run.rings if ring.back)
    taken = sum(half.completion is not None or half.recycled is not None for half in fronts)
    return (
        Observed("requests", len(fronts) if in_front else None, backs if in_back else None),
        Observed("responses", taken if in_front else None, answers if in_back else None),
    )


def _at_rest(run: History) -> list[Observed]:
    """Count the disk's grants that are mapped after the load: by the events, and in Xen's own list.

    In that list the disk's are told from others by reference and frame.  The frontend knows which grants it
    has not ended; the backend maps them all, unless they don't fit in its tree.
    """
    if run.facts.attached is None or run.rest is None:
        return []
    counts = []
    for device in sorted({ring.device for ring in run.rings}):
        mappings = [mapping for mapping in run.mappings if _of(mapping, device)]
        if any(_within(mapping, *run.rest) for mapping in mappings):
            continue
        live = {m.op.gref for m in mappings if _throughout(m, *run.rest)}
        pages = {int(event.value) for event in run.store.ring_pages(device) if event.value.isdecimal()}
        kept_all = all(mapping.entry is not None and mapping.op.gref in live for mapping in mappings)
        ended_all = not any(ring.persistent is not False for ring in run.rings if ring.device == device)
        held = {g.event.ref for g in _granted(run, device) if _holds(g, run.rest[0])}
        counts.append(
            Observed(
                "grants mapped at rest",
                frontend=len(held | pages) if kept_all or ended_all else None,
                backend=len(live | pages),
                xen=len(_listed(run, device, run.facts.attached, run.rest[1])),
            )
        )
    return counts


def _at_end(run: History) -> list[Observed]:
    """Count the disk's grants that are mapped after it was detached; a frontend that has ended all says none.

    An end that the frontend put off says nothing: it tries again later.
    """
    if run.facts.detached is None or not run.facts.detached.complete:
        return []
    counts = []
    for device in sorted({ring.device for ring in run.rings}):
        if run.closed(device, 0) is None:
            continue
        ended_all = all(grant.ended is not None for grant in (*_granted(run, device), *run.ring_pages))
        mappings = [m for m in run.mappings if _of(m, device) and m.unmapped is None]
        if any(mapping.hidden for mapping in mappings):
            continue
        counts.append(
            Observed(
                "grants mapped after the detaching",
                frontend=0 if ended_all else None,
                backend=len({m.op.gref for m in mappings}),
                xen=len(_listed(run, device, run.facts.detached, run.end)),
            )
        )
    return counts


def _listed(run: History, device: Device, dump: GrantDump, tsc: int) -> set[int]:
    granted = {g.event.ref: g.event.frame for g in (*run.grants, *run.ring_pages) if g.event.tsc <= tsc}
    return {a.ref for a in dump.mapped_by(device.domid, 0) if granted.get(a.ref) == a.mfn}


def _granted(run: History, device: Device) -> list[Grant]:
    """Return the grants that the frontend gave for requests on ``device``."""
    fronts = {id(ring.front) for ring in run.rings if ring.device == device}
    return [grant for grant in run.grants if grant.half is not None and id(grant.half.ring) in fronts]


def _holds(grant: Grant, tsc: int) -> bool:
    return grant.event.tsc <= tsc and (grant.ended is None or grant.ended.tsc > tsc)


def _of(mapping: Mapping, device: Device) -> bool:
    half = mapping.call.half
    return half is not None and half.ring.device == device


def _throughout(mapping: Mapping, begin: int, end: int) -> bool:
    return mapping.event.tsc < begin and (mapping.unmapped is None or mapping.unmapped.tsc > end)


def _within(mapping: Mapping, begin: int, end: int) -> bool:
    times = [mapping.event.tsc] + ([mapping.unmapped.tsc] if mapping.unmapped else [])
    return any(begin <= tsc <= end for tsc in times)
