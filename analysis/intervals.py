"""What the three observers counted between the harness' marks: maps and unmaps of the guests' grants.

The backend's kernel tells of every operation after Xen has done it, so what was on its way at a mark stands
before it in Xen's trace and behind it in the kernel's: such records count where the kernel's do.  A ring is
mapped by a hypercall of its own, of which the kernel tells before; it may be mapped more than once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from blkproof.analysis import wire
from blkproof.analysis.entities import Request
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.metrics import Interval, Observed

Times = npt.NDArray[np.uint64]
"""TSC of each of some grants' operations, sorted."""

_MARK: Final = "blkproof:"
_RING: Final = frozenset({"gt_map_ring", "gt_unmap_ring"})
_FRONTEND: Final = frozenset({"fe_queue", "fe_push"})
"""What the frontend's kernel has to record, so that the grants of its requests are known."""
_BACKEND: Final = frozenset({"be_request", "be_map", "be_map_ret", "be_get", "be_get_ret", "gt_map"})
"""What the backend's kernel has to record, so that it is known which of them it has to map."""


class _Operations(NamedTuple):
    """All maps, or all unmaps: as the backend's kernel and Xen recorded them, as the frontend implies."""

    what: str
    frontend: Times | None
    backend: Times | None
    xen: Times


def intervals(run: History) -> tuple[Interval, ...]:
    """Return the counts of each interval between two marks; without marks, of the whole recording."""
    names, bounds = _bounds(run)
    domids = set(run.facts.domids.values())
    maps, unmaps = _recorded(run, "xen_map", domids), _recorded(run, "xen_unmap", domids)
    kernel = _told(run, domids, maps, unmaps)
    both = (
        _Operations("grants mapped", _implied(run, kernel[0]), kernel[0], maps),
        _Operations("grants unmapped", None, kernel[1], unmaps),
    )
    counts = zip(*(_counts(operations, bounds, _cpus(run)) for operations in both), strict=True)
    return tuple(
        Interval(name, end - begin, observed)
        for name, begin, end, observed in zip(names, bounds, bounds[1:], counts, strict=False)
    )


def totals(parts: Sequence[Interval]) -> tuple[Observed, ...]:
    """Add up the counts of all intervals."""
    return tuple(
        Observed(
            one[0].what,
            *(
                None if None in counts else sum(count for count in counts if count is not None)
                for counts in zip(*((o.frontend, o.backend, o.xen) for o in one), strict=True)
            ),
        )
        for one in zip(*(part.observed for part in parts), strict=True)
    )


def _bounds(run: History) -> tuple[list[str], list[int]]:
    """Return the names of all intervals, and their begins with the end of the last."""
    if run.armed is None:
        return ["recording"], [run.begin, run.end + 1]
    begin, end = run.armed
    marks = [(m.tsc, m.text.removeprefix(_MARK)) for m in run.table.rows(["mark"], BACKEND)]
    inside = [(tsc, name) for tsc, name in marks if begin <= tsc < end]
    return [name for _, name in inside], [*(tsc for tsc, _ in inside), end + 1]


def _counts(operations: _Operations, bounds: Sequence[int], cpus: int) -> list[Observed]:
    xen = _settled(operations.xen, operations.backend, bounds, cpus)
    front, back = (_before(times, bounds) for times in (operations.frontend, operations.backend))
    return [
        Observed(operations.what, *(None if c is None else c[i + 1] - c[i] for c in (front, back, xen)))
        for i in range(len(bounds) - 1)
    ]


def _before(times: Times | None, bounds: Sequence[int]) -> list[int] | None:
    return None if times is None else [int(n) for n in np.searchsorted(times, np.array(bounds, np.uint64))]


def _settled(xen: Times, kernel: Times | None, bounds: Sequence[int], cpus: int) -> list[int]:
    """Count Xen's records before each bound, but for those that were on their way to the kernel there.

    So many records may be on their way as the kernel tells of in the next events of its ``cpus``, and as Xen
    recorded since the last.
    """
    seen = _before(xen, bounds)
    told = _before(kernel, bounds)
    assert seen is not None
    if kernel is None or told is None:
        return seen
    moments, sizes = np.unique(kernel, return_counts=True)
    settled = [seen[0]]
    odd = seen[0] - told[0]
    for bound, there, known in zip(bounds[1:], seen[1:], told[1:], strict=True):
        at = int(np.searchsorted(moments, np.uint64(bound)))
        since = int(np.searchsorted(xen, moments[at - cpus])) if at >= cpus else 0
        on_way = there - known - odd
        if 0 < on_way <= min(there - since, int(sizes[at : at + cpus].sum())):
            settled.append(there - on_way)
        else:
            odd = there - known
            settled.append(there)
    return settled


def _implied(run: History, kernel: Times | None) -> Times | None:
    """Return what the kernel told of, put right by what the frontend's requests say should have been.

    Each grant of a request is found in the backend's tree or mapped.  Of mappings of rings and of other
    drivers the requests say nothing.
    """
    armed, fronts = run.table.probes, run.facts.domids.keys()
    if kernel is None or not armed.get(BACKEND, frozenset()) >= _BACKEND:
        return None
    if not all(armed.get(front, frozenset()) >= _FRONTEND for front in fronts) or _lost(run):
        return None
    times = Counter(kernel.tolist())
    times.subtract(m.event.tsc for m in run.mappings if m.call.half is None)
    for request in (request for ring in run.rings for request in ring.requests):
        times.update(_more(request))
    return _sorted(times.elements())


def _lost(run: History) -> bool:
    return any(window.source in run.facts.domids for window in run.lost)


def _more(request: Request) -> dict[int, int]:
    """Return how many more mappings a request implies than were made for it, and when."""
    front, back = request.front, request.back
    if back is None or back.response is None or back.response.status != wire.OKAY:
        return {}
    grants = front.uses if front else 0
    hits = sum(lookup.hit for call in back.calls for lookup in call.lookups)
    made = back.mappings
    when = made[-1].event.tsc if made else back.taken.tsc
    return {when: grants - hits - len(made)} if back.has_data else {}


def _told(run: History, domids: set[int], maps: Times, unmaps: Times) -> tuple[Times | None, Times | None]:
    """Return when the backend's kernel told of maps and unmaps by all drivers, None without probes for rings.

    An unmapped ring has as many pages as were mapped of it.
    """
    if not run.table.probes.get(BACKEND, frozenset()) >= _RING:
        return None, None
    told: tuple[list[int], list[int]] = [], []
    pages: dict[str, int] = {}
    for event in run.table.rows(_RING):
        if _granter(event.node) in domids:
            unmap = event.event == "gt_unmap_ring"
            if not unmap:
                pages[event.node] = event.n
            xen = unmaps if unmap else maps
            begin = int(np.searchsorted(xen, np.uint64(event.tsc)))
            count = pages.get(event.node, 1)
            done = xen[begin : begin + count].tolist()
            told[unmap].extend([*done, *[event.tsc] * (count - len(done))])
    for domid in domids:
        told[0].extend(run.mapped_of.get(domid, ()))
        told[1].extend(run.unmapped_of.get(domid, ()))
    return _sorted(told[0]), _sorted(told[1])


def _granter(node: str) -> int | None:
    """Return the domid in the path of a backend, ``backend/<kind>/<domid>/<device>``."""
    parts = node.split("/")
    return int(parts[2]) if len(parts) > 2 and parts[2].isdecimal() else None


def _recorded(run: History, name: str, domids: set[int]) -> Times:
    """Return when Xen recorded operations on grants of the guests."""
    if not run.table.count(name):
        return np.zeros(0, np.uint64)
    ours = np.isin(run.table.payload[name]["dom"], sorted(domids))
    return run.table.tsc[run.table.index[name]][ours]


def _cpus(run: History) -> int:
    """Return how many CPUs of the backend's domain recorded anything."""
    table = run.table
    sources = [number for number, source in enumerate(table.sources) if source == BACKEND]
    return max(1, len(np.unique(table.cpu[np.isin(table.source, sources)])))


def _sorted(times: Iterable[int]) -> Times:
    return np.sort(np.array(list(times), np.uint64))
