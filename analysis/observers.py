"""Three observers that share no code count the same things: the frontend's kernel, the backend's, and Xen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from blkproof.analysis.entities import Device, Mapping
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.metrics import Observed
from blkproof.traces.events import UNMAPS_IN


def observed(run: History) -> tuple[Observed, ...]:
    """Return what could be counted by more than one observer."""
    counts = [*_requests(run)]
    if _all_recorded(run):
        counts += _grants(run)
    if _all_recorded(run) and run.facts.attached is not None and run.rest is not None:
        counts += _at_rest(run, run.rest)
    return tuple(counts)


def acquit(run: History) -> History:
    """Take back the losses of map and unmap events that Xen, who saw all of them, does not miss.

    A probe that could not run counts its misses, not whose they were: the network backend of the same
    kernel maps grants too.  When Xen recorded as many maps of the guests' grants as the events tell, none
    of theirs is missing.
    """
    if any(window.source == "xen" for window in run.lost) or not _all_recorded(run):
        return run
    mapped, unmapped = _grants(run)
    sound = ({"gt_map"} if mapped.agree else set()) | (set(UNMAPS_IN) if unmapped.agree else set())
    lost = tuple(window for window in run.lost if window.source != BACKEND or window.event not in sound)
    return replace(run, lost=lost)


def _all_recorded(run: History) -> bool:
    """Tell whether Xen, the backend's kernel and all frontends' kernels left a recording."""
    return run.table.probes.keys() >= {BACKEND, "xen", *run.facts.domids}


def _requests(run: History) -> tuple[Observed, Observed]:
    in_front = any(source in run.facts.domids for source in run.table.probes)
    in_back = BACKEND in run.table.probes
    fronts = [half for ring in run.rings if ring.front for half in ring.front.halves]
    backs = sum(len(ring.back.halves) for ring in run.rings if ring.back)
    answers = sum(len(ring.back.responses) for ring in run.rings if ring.back)
    taken = sum(half.completion is not None or half.recycled is not None for half in fronts)
    return (
        Observed("requests", len(fronts) if in_front else None, backs if in_back else None),
        Observed("responses", taken if in_front else None, answers if in_back else None),
    )


def _grants(run: History) -> tuple[Observed, Observed]:
    """Count the grants of the guests that were mapped and unmapped, by any driver."""
    domids = set(run.facts.domids.values())
    maps = sum(count for domid, count in run.mapped_of.items() if domid in domids)
    unmaps = sum(count for domid, count in run.unmapped_of.items() if domid in domids)
    rings = _ring_pages(run, domids)
    return (
        Observed(
            "grants mapped",
            backend=maps + rings[0] if rings else None,
            xen=_recorded(run, "xen_map", domids),
        ),
        Observed(
            "grants unmapped",
            backend=unmaps + rings[1] if rings else None,
            xen=_recorded(run, "xen_unmap", domids),
        ),
    )


def _ring_pages(run: History, domids: set[int]) -> tuple[int, int] | None:
    """Count the pages of rings that were mapped and unmapped; None where the probes for it were not armed.

    They are mapped by a hypercall of their own.  When a frontend's state is seen twice, a backend that is
    not yet connected unmaps its ring and maps it again (Linux frontend_changed): that is legal.
    """
    if not run.table.probes.get(BACKEND, frozenset()) >= {"gt_map_ring", "gt_unmap_ring"}:
        return None
    pages: dict[str, int] = {}
    maps = unmaps = 0
    for event in run.table.rows(["gt_map_ring", "gt_unmap_ring"]):
        if _granter(event.node) not in domids:
            continue
        if event.event == "gt_map_ring":
            pages[event.node] = event.n
            maps += event.n
        else:
            unmaps += pages.get(event.node, 1)
    return maps, unmaps


def _granter(node: str) -> int | None:
    """Return the domid in the path of a backend, ``backend/<kind>/<domid>/<device>``."""
    parts = node.split("/")
    return int(parts[2]) if len(parts) > 2 and parts[2].isdecimal() else None


def _recorded(run: History, name: str, domids: set[int]) -> int:
    """Count Xen's records of a kind while the backend's kernel was recording too."""
    if not run.table.count(name):
        return 0
    begin, end = run.armed or (run.begin, run.end)
    tsc = run.table.tsc[run.table.index[name]]
    ours = np.isin(run.table.payload[name]["dom"], sorted(domids))
    return int((ours & (tsc >= begin) & (tsc <= end)).sum())


def _at_rest(run: History, rest: tuple[int, int]) -> list[Observed]:
    """Count the disk's grants that were mapped after the load: by the events, and in Xen's own list.

    In that list the disk's are told from others by reference and frame.
    """
    counts = []
    for device in sorted({ring.device for ring in run.rings}):
        live = {m.op.gref for m in run.mappings if _of(m, device) and _throughout(m, *rest)}
        moved = any(_of(m, device) and _within(m, *rest) for m in run.mappings)
        if moved:
            continue
        ring_refs = {int(event.value) for event in run.store.ring_pages(device) if event.value.isdecimal()}
        granted = {
            g.event.ref: g.event.frame for g in (*run.grants, *run.ring_pages) if g.event.tsc <= rest[1]
        }
        assert run.facts.attached is not None
        listed = {
            active.ref
            for active in run.facts.attached.mapped_by(device.domid, 0)
            if granted.get(active.ref) == active.mfn
        }
        counts.append(Observed("grants mapped at rest", backend=len(live | ring_refs), xen=len(listed)))
    return counts


def _of(mapping: Mapping, device: Device) -> bool:
    half = mapping.call.half
    return half is not None and half.ring.device == device


def _throughout(mapping: Mapping, begin: int, end: int) -> bool:
    return mapping.event.tsc < begin and (mapping.unmapped is None or mapping.unmapped.tsc > end)


def _within(mapping: Mapping, begin: int, end: int) -> bool:
    times = [mapping.event.tsc] + ([mapping.unmapped.tsc] if mapping.unmapped else [])
    return any(begin <= tsc <= end for tsc in times)
