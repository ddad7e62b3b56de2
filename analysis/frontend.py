"""The frontend's half of the model: replays its events into requests and grants.

| event                        | Linux xen-blkfront                     | what the model does                |
| ---------------------------- | -------------------------------------- | ---------------------------------- |
| fe_queue, fe_discard         | blkif_queue_*_req                      | a request gets an index            |
| gt_grant                     | get_grant, get_indirect_grant          | a page of it is granted            |
| fe_page, ..._more, ..._rest  | blkif_queue_rw_req                     | its segments are in its page       |
| fe_push                      | blkif_queue_rw_req, at its end         | it is on the ring                  |
| fe_response, gt_try_end      | blkif_completion                       | the request is completed           |
| fe_recycle                   | add_id_to_freelist                     | its id is free again               |
| gt_end, gt_put_free          | put_free_entry_locked                  | a grant ends                       |

All of this happens under the ring's lock with interrupts off, so on one CPU nothing comes between the
events of one request; they are followed by CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blkproof.analysis import wire
from blkproof.analysis.entities import Ending, FrontHalf, FrontRing, Grant
from blkproof.traces.events import PUSHED_IN, Event


class _Cpu:
    """What one CPU of the frontend is doing."""

    def __init__(self) -> None:
        self.queueing: FrontHalf | None = None
        self.completing: FrontHalf | None = None
        self.ending: Ending | None = None
        self.tried: set[int] = set()

    def settle(self) -> None:
        """Take in that whatever the last try to end a grant led to has been seen by now."""
        if self.ending is not None:
            self.ending.over = True
        self.ending = None

    def leave(self) -> None:
        """Take in that the completion of a request is over."""
        self.settle()
        self.completing = None
        self.tried.clear()


class FrontReplay:
    """Feed it every frontend event in order; then read ``rings``, ``grants`` and ``ring_pages``.

    ``grants`` are those given for the pages of requests, ``ring_pages`` those of the rings; ``purged`` are
    tries to end a grant that were not made for the completion of a request.
    """

    def __init__(self) -> None:
        self.rings: list[FrontRing] = []
        self.grants: list[Grant] = []
        self.ring_pages: list[Grant] = []
        self.purged: list[Ending] = []
        self._current: dict[tuple[str, int], FrontRing] = {}
        self._cpus: dict[tuple[str, int], _Cpu] = {}
        self._granted: dict[tuple[str, int], Grant] = {}
        self.handlers: Final[dict[str, Callable[[Event], None]]] = {
            "fe_queue": self._queue,
            "fe_discard": self._queue,
            "fe_push": self._push,
            **dict.fromkeys(PUSHED_IN, self._page),
            "fe_irq": self._look,
            "fe_response": self._response,
            "fe_recycle": self._recycle,
            "gt_grant": self._gt_grant,
            "gt_try_end": self._try_end,
            "gt_end": self._end,
            "gt_put_free": self._put_free,
            "xs_write": self._xs_write,
        }

    def forget(self, source: str) -> None:
        """Take in that records of ``source`` were lost: what its CPUs were doing may be over by now."""
        for key in [key for key in self._cpus if key[0] == source]:
            del self._cpus[key]

    # Section: queueing

    def _queue(self, event: Event) -> None:
        ring = self._ring(event)
        cpu = self._cpu(event)
        cpu.leave()
        cpu.queueing = half = FrontHalf(ring, event.req_prod_pvt, event)
        if event.event == "fe_discard":
            self._on_ring(half, event.id)

    def _gt_grant(self, event: Event) -> None:
        half = self._cpu(event).queueing
        if half is not None and half.push is not None:
            half = None
        grant = Grant(event, half)
        self._granted[event.source, event.ref] = grant
        if half is not None:
            half.grants.append(grant)
            self.grants.append(grant)

    def _push(self, event: Event) -> None:
        # Only now it is sure that the request goes on the ring: without grants it is put off.
        cpu = self._cpu(event)
        half = cpu.queueing
        if half is None or (half.ring.address, half.index + 1) != (event.rinfo, event.req_prod_pvt):
            cpu.queueing = None
            return
        half.push = event
        self._on_ring(half, event.id)
        if event.op != wire.INDIRECT:
            half.segments = wire.direct_segments(event)
        elif len(half.parts) == event.indirect_nr:
            half.segments = tuple(half.parts[number] for number in sorted(half.parts))
        grefs = [segment.gref for segment in half.segments or half.parts.values()]
        if event.op == wire.INDIRECT:
            grefs += event.indirect_gref[: wire.indirect_pages(event.indirect_nr)]
        half.granted = {gref: self._granted.get((event.source, gref)) for gref in grefs}

    def _page(self, event: Event) -> None:
        half = self._cpu(event).queueing
        if half is not None:
            half.parts |= wire.pushed_segments(event)

    def _on_ring(self, half: FrontHalf, number: int) -> None:
        half.id = number
        half.ring.halves.append(half)
        half.ring.open[number] = half

    # Section: completing

    def _look(self, event: Event) -> None:
        ring = self._current.get((event.source, event.rinfo))
        self._cpu(event).leave()
        if ring is not None:
            ring.looks.append(event)

    def _response(self, event: Event) -> None:
        cpu = self._cpu(event)
        ring = self._current.get((event.source, event.rinfo))
        cpu.leave()
        cpu.completing = ring.open.pop(event.id, None) if ring else None
        if cpu.completing is not None:
            cpu.completing.completion = event

    def _try_end(self, event: Event) -> None:
        cpu = self._cpu(event)
        cpu.settle()
        cpu.ending = Ending(event)
        half = cpu.completing
        if (
            half is not None
            and event.ref not in cpu.tried
            and (half.grefs is None or event.ref in half.granted)
        ):
            cpu.tried.add(event.ref)
            half.endings.append(cpu.ending)
        else:
            # The frontend's purge, which comes on its own.
            self.purged.append(cpu.ending)

    def _recycle(self, event: Event) -> None:
        cpu = self._cpu(event)
        half = cpu.completing
        cpu.leave()
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
        ending = self._cpu(event).ending
        if ending is not None and ending.event.ref == event.ref:
            ending.freed = event
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
