"""The frontend's half of the model: replays its events into requests and grants.

| event                        | Linux xen-blkfront                     | what the model does                |
| ---------------------------- | -------------------------------------- | ---------------------------------- |
| fe_queue, fe_discard, fe_id  | blkif_queue_*_req, get_id_from_freelist| a request gets an index and an id  |
| fe_seg, gt_grant, fe_grant   | blkif_setup_rw_req_grant, get_grant    | a segment is filled                |
| fe_response, gt_try_end      | blkif_completion                       | the request is completed           |
| fe_recycle                   | add_id_to_freelist                     | its id is free again               |
| gt_end, gt_put_free          | put_free_entry_locked                  | a grant ends                       |

All of this happens under the ring's lock with interrupts off, so on one CPU nothing comes between the
events of one request; they are followed by CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blkproof.analysis.entities import Ending, Fill, FrontHalf, FrontRing, Grant
from blkproof.traces.events import Event


class _Cpu:
    """What one CPU of the frontend is doing."""

    def __init__(self) -> None:
        self.queueing: FrontHalf | None = None
        self.filling: Fill | None = None
        self.completing: FrontHalf | None = None
        self.ending: Ending | None = None


class FrontReplay:
    """Feed it every frontend event in order; then read ``rings``, ``grants`` and ``ring_pages``.

    ``grants`` are those given for segments and indirect pages, ``ring_pages`` those of the rings.
    """

    def __init__(self) -> None:
        self.rings: list[FrontRing] = []
        self.grants: list[Grant] = []
        self.ring_pages: list[Grant] = []
        self._current: dict[tuple[str, int], FrontRing] = {}
        self._cpus: dict[tuple[str, int], _Cpu] = {}
        self._granted: dict[tuple[str, int], Grant] = {}
        self.handlers: Final[dict[str, Callable[[Event], None]]] = {
            "fe_queue": self._queue,
            "fe_discard": self._queue,
            "fe_id": self._id,
            "fe_seg": self._seg,
            "fe_grant": self._grant,
            "fe_indirect_grant": self._page,
            "fe_irq": self._look,
            "fe_response": self._response,
            "fe_recycle": self._recycle,
            "gt_grant": self._gt_grant,
            "gt_try_end": self._try_end,
            "gt_try_end_ret": self._try_end_ret,
            "gt_end": self._end,
            "gt_put_free": self._put_free,
            "xs_write": self._xs_write,
        }

    # Section: queueing

    def _queue(self, event: Event) -> None:
        ring = self._ring(event)
        cpu = self._cpu(event)
        cpu.queueing = FrontHalf(ring, event.req_prod_pvt, event)
        cpu.filling = None

    def _id(self, event: Event) -> None:
        half = self._cpu(event).queueing
        if half is None or half.chosen is not None:
            return
        # Only now it is sure that the request goes on the ring: without grants it is put off.
        half.chosen = event
        half.ring.halves.append(half)
        half.ring.open[event.id] = half

    def _seg(self, event: Event) -> None:
        cpu = self._cpu(event)
        half = cpu.queueing
        if half is None or half.chosen is None or half.chosen.id != event.id:
            cpu.queueing = cpu.filling = None
            return
        cpu.filling = Fill(event)
        half.fills.append(cpu.filling)

    def _gt_grant(self, event: Event) -> None:
        cpu = self._cpu(event)
        half = cpu.queueing if cpu.filling is not None else None
        grant = Grant(event, half)
        self._granted[event.source, event.ref] = grant
        if cpu.filling is not None:
            cpu.filling.grants.append(grant)
            self.grants.append(grant)

    def _page(self, event: Event) -> None:
        cpu = self._cpu(event)
        if cpu.filling is not None and cpu.queueing is not None:
            cpu.queueing.pages.append(event)

    def _grant(self, event: Event) -> None:
        cpu = self._cpu(event)
        if cpu.filling is not None:
            cpu.filling.gref = event.gref
        cpu.filling = None

    # Section: completing

    def _look(self, event: Event) -> None:
        ring = self._current.get((event.source, event.rinfo))
        if ring is not None:
            ring.looks.append(event)

    def _response(self, event: Event) -> None:
        cpu = self._cpu(event)
        ring = self._current.get((event.source, event.rinfo))
        cpu.ending = None
        cpu.completing = ring.open.pop(event.id, None) if ring else None
        if cpu.completing is not None:
            cpu.completing.completion = event

    def _try_end(self, event: Event) -> None:
        cpu = self._cpu(event)
        cpu.ending = Ending(event)
        if cpu.completing is not None:
            cpu.completing.endings.append(cpu.ending)

    def _try_end_ret(self, event: Event) -> None:
        cpu = self._cpu(event)
        if cpu.ending is not None:
            cpu.ending.result = event
        cpu.ending = None

    def _recycle(self, event: Event) -> None:
        cpu = self._cpu(event)
        half, cpu.completing = cpu.completing, None
        ring = self._current.get((event.source, event.rinfo))
        if half is None and ring is not None:
            half = ring.open.pop(event.id, None)
        if half is not None:
            half.recycled = event

    # Section: grants

    def _end(self, event: Event) -> None:
        grant = self._granted.get((event.source, event.ref))
        if grant is not None:
            grant.closing = event

    def _put_free(self, event: Event) -> None:
        grant = self._granted.pop((event.source, event.ref), None)
        if grant is not None:
            grant.ended = event

    def _xs_write(self, event: Event) -> None:
        if event.node.startswith("ring-ref") and event.value.isdecimal() and "/vbd/" in event.dir:
            grant = self._granted.get((event.source, int(event.value)))
            if grant is not None:
                self.ring_pages.append(grant)

    # Section: who

    def _ring(self, event: Event) -> FrontRing:
        key = (event.source, event.rinfo)
        ring = self._current.get(key)
        if ring is None or (event.req_prod_pvt == 0 and ring.halves):
            ring = self._current[key] = FrontRing(event.rinfo, event.source)
            self.rings.append(ring)
        if event.event == "fe_queue":
            ring.vdev = event.vdev
        return ring

    def _cpu(self, event: Event) -> _Cpu:
        key = (event.source, event.cpu)
        cpu = self._cpus.get(key)
        if cpu is None:
            cpu = self._cpus[key] = _Cpu()
        return cpu
