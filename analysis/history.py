"""The history of a run: all that its events tell, reconstructed once, in the order of time.

The two sides are replayed apart and then joined: rings by device and by what stands at the same index,
requests by their index in the ring.
"""

from __future__ import annotations

import gc
from collections import abc
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from blkproof.analysis import store as paths
from blkproof.analysis.backend import BackReplay
from blkproof.analysis.entities import (
    BackRing,
    Device,
    Ending,
    FrontHalf,
    FrontRing,
    Grant,
    Mapping,
    Request,
    Ring,
    Unmapping,
)
from blkproof.analysis.facts import BACKEND, FRONTEND_MODULE, Facts
from blkproof.analysis.frontend import FrontReplay
from blkproof.analysis.losses import Losses
from blkproof.analysis.store import Store
from blkproof.traces.events import Event
from blkproof.traces.stream import FOREVER, LossWindow
from blkproof.traces.table import EventTable

_CLOSED: Final = 6
"""XenbusStateClosed."""
_SAMPLE: Final = 16
"""Requests that two halves of a ring are compared by."""


@dataclass(frozen=True, slots=True)
class History:
    """What happened: rings with their requests, mappings, grants, xenstore, and what may be missing.

    ``mappings`` and ``unmappings`` are the block backend's, ``mapped_of`` and ``unmapped_of`` the ticks of
    those of all drivers of its domain, by the domid that granted.  ``begin`` and ``end`` are the ticks
    between which events were recorded.  If they were marked, ``armed`` are those between which the backend's
    kernel recorded, ``load`` those of the guest's load, and ``rest`` those after it and before the detaching.
    ``lost`` are the losses that count.
    """

    table: EventTable
    facts: Facts
    lost: tuple[LossWindow, ...]
    store: Store
    rings: tuple[Ring, ...]
    mappings: tuple[Mapping, ...]
    unmappings: tuple[Unmapping, ...]
    grants: tuple[Grant, ...]
    ring_pages: tuple[Grant, ...]
    purged: tuple[Ending, ...]
    mapped_of: abc.Mapping[int, abc.Sequence[int]]
    unmapped_of: abc.Mapping[int, abc.Sequence[int]]
    switches: tuple[Event, ...]
    begin: int
    end: int
    armed: tuple[int, int] | None
    load: tuple[int, int] | None
    rest: tuple[int, int] | None

    def guest(self, ring: Ring) -> str:
        """Return the name of the source that is the frontend of ``ring``."""
        if ring.front is not None:
            return ring.front.source
        return self.facts.guest(ring.device.domid) or f"domain {ring.device.domid}"

    def linux_frontend(self, ring: Ring) -> bool:
        """Tell whether the frontend of ``ring`` is Linux's: it was seen at work, or its parameters were."""
        known = self.facts.parameters.get(self.guest(ring), {})
        return ring.front is not None or bool(known.get(FRONTEND_MODULE))

    def closed(self, device: Device, after: int) -> Event | None:
        """Return the event by which the backend closed ``device``, after a time in ticks: the last one."""
        node = f"backend/vbd/{device.domid}/{device.vdev}"
        return next(
            (
                event
                for event in reversed(self.switches)
                if event.source == BACKEND
                and event.state == _CLOSED
                and event.node == node
                and event.tsc >= after
            ),
            None,
        )

    def in_flight(self, free: Event) -> list[FrontHalf]:
        """Return the requests that a frontend's ring had in flight when it was freed (``fe_free``)."""
        frees = self.table.rows(["fe_free"], free.source)
        begun = max((e.tsc for e in frees if e.rinfo == free.rinfo and e.tsc < free.tsc), default=0)
        return [
            half
            for ring in self.rings
            if ring.front is not None and (ring.front.source, ring.front.address) == (free.source, free.rinfo)
            for half in ring.front.halves
            if begun < half.queue.tsc < free.tsc
            and all(end is None or end.tsc > free.tsc for end in (half.completion, half.recycled))
        ]

    @property
    def cap(self) -> int | None:
        """Grants that the backend may keep per ring: its parameter, or None when that is not known."""
        return self.facts.number(BACKEND, "xen_blkback", "max_persistent_grants")


@contextmanager
def _nothing_collected() -> abc.Iterator[None]:
    """Keep Python from looking for garbage: all that a replay makes stays, and each look goes through it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_nothing_collected()
def replay(table: EventTable, facts: Facts) -> History:
    """Reconstruct the history that ``table`` tells."""
    backend, frontend = BackReplay(), FrontReplay()
    store, losses = Store(facts.before, facts.domids), Losses(table.losses)
    switches: list[Event] = []
    marks: list[Event] = []
    handlers: dict[str, list[Callable[[Event], None]]] = {
        "xs_write": [store.write],
        "xs_switch": [switches.append],
        "mark": [marks.append],
    }
    for name, handler in (*backend.handlers.items(), *frontend.handlers.items()):
        handlers.setdefault(name, []).append(handler)
    lost = sorted((w.end_tsc, w.source) for w in table.losses if w.event is None and w.end_tsc < FOREVER)
    lost.reverse()
    for event in table.rows(handlers):
        while lost and lost[-1][0] <= event.tsc:
            frontend.forget(lost.pop()[1])
        for handle in handlers[event.event]:
            handle(event)
    return History(
        table=table,
        facts=facts,
        lost=table.losses,
        store=store,
        rings=_join(backend.rings, frontend.rings, _Scene(table, facts, losses, store)),
        mappings=tuple(backend.mappings),
        unmappings=tuple(backend.unmappings),
        grants=tuple(frontend.grants),
        ring_pages=tuple(frontend.ring_pages),
        purged=tuple(frontend.purged),
        mapped_of=backend.mapped_of,
        unmapped_of=backend.unmapped_of,
        switches=tuple(switches),
        begin=int(table.tsc[0]) if len(table) else 0,
        end=int(table.tsc[-1]) if len(table) else 0,
        load=_between((mark for mark in marks if mark.source != BACKEND), "load", "loaded"),
        armed=_between((mark for mark in marks if mark.source == BACKEND), "armed", "disarm"),
        rest=_between((mark for mark in marks if mark.source == BACKEND), "loaded", "detach"),
    )


def _between(marks: Iterable[Event], first: str, last: str) -> tuple[int, int] | None:
    times = {event.text.removeprefix("blkproof:").strip(): event.tsc for event in marks}
    return (times[first], times[last]) if times.keys() >= {first, last} else None


@dataclass(frozen=True, slots=True)
class _Scene:
    table: EventTable
    facts: Facts
    losses: Losses
    store: Store

    def offer(self, source: str | None, path: str, tsc: int) -> bool | None:
        """Tell whether ``path`` held 1 at ``tsc``; a key that nobody was seen to write counts as 0.

        Of a kernel whose trace is lost, what xenstore held while the disk was attached has to do.
        """
        write = self.store.at(path, tsc)
        if write is not None:
            return write.value == "1"
        if source not in self.table.probes and path in self.facts.during:
            return self.facts.during[path] == "1"
        armed = source is not None and "xs_write" in self.table.probes.get(source, ())
        lost = source is None or self.losses.between(source, 0, tsc, frozenset({"xs_write"}))
        return False if armed and not lost else None


def _join(backs: Iterable[BackRing], fronts: Iterable[FrontRing], scene: _Scene) -> tuple[Ring, ...]:
    alone = [front for front in fronts if front.halves]
    rings = []
    for back in backs:
        candidates = [front for front in alone if _may_be(front, back, scene.facts)]
        best = max(candidates, key=lambda front: _likeness(front, back), default=None)
        if best is not None:
            alone.remove(best)
            if back.device.vdev < 0 and best.vdev is not None:
                back.device = Device(back.device.domid, best.vdev)
        rings.append(_ring(back.device, best, back, scene))
    for front in alone:
        device = Device(scene.facts.domids.get(front.source, -1), -1 if front.vdev is None else front.vdev)
        rings.append(_ring(device, front, None, scene))
    return tuple(sorted(rings, key=lambda ring: ring.begin))


def _may_be(front: FrontRing, back: BackRing, facts: Facts) -> bool:
    if facts.domids.get(front.source) != back.device.domid:
        return False
    return front.vdev is None or back.device.vdev < 0 or front.vdev == back.device.vdev


def _likeness(front: FrontRing, back: BackRing) -> tuple[int, bool, int]:
    """Count early requests that look the same at the same index; the last ring begun before wins a tie.

    After a reconnection the frontend asks again for what it had in flight, so the first may look the same.
    """
    seen = {half.index: half.queue.sector for half in front.halves[: 2 * _SAMPLE]}
    same = sum(
        1
        for half in back.halves[:_SAMPLE]
        if half.taken.event != "be_other" and seen.get(half.index) == half.taken.sector
    )
    begun = front.halves[0].queue.tsc
    before = begun < back.halves[0].taken.tsc
    return same, before, begun if before else -begun


def _ring(device: Device, front: FrontRing | None, back: BackRing | None, scene: _Scene) -> Ring:
    of_front = {half.index: half for half in front.halves} if front else {}
    of_back = {half.index: half for half in back.halves} if back else {}
    requests = tuple(
        Request(index, of_front.get(index), of_back.get(index))
        for index in sorted(of_front.keys() | of_back.keys())
    )
    if device.vdev < 0:
        # Only discards were recorded, which do not name their device: there may be just one.
        devices = [found for found in scene.store.devices if found.domid == device.domid]
        device = devices[0] if len(devices) == 1 else device
    ring = Ring(device, front, back, requests)
    guest = front.source if front else scene.facts.guest(device.domid)
    ring.offers = (
        scene.offer(BACKEND, paths.back(device, "feature-persistent"), ring.begin),
        scene.offer(guest, paths.front(device, "feature-persistent"), ring.begin),
    )
    return ring
