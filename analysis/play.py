"""A play of both drivers: the events that a correct Linux pair records, request by request.

Each rule's two examples are played with it, and so are the random histories of the tests.  What a scene
changes is said by name: ``play.io(WRITE, be_request={"id": 9})`` changes a field of one event,
``skip={"gt_unmap"}`` leaves an event out, and :meth:`Play.set` changes how the drivers act.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self

from blkproof.analysis import wire
from blkproof.analysis.handshake import BACK, FRONT, STATE, VDEV, Step
from blkproof.analysis.scenery import Indices, Io
from blkproof.analysis.stage import (
    BACK_IRQ,
    FRONT_IRQ,
    INTERRUPT,
    PAGE_BYTES,
    RINFO,
    RING,
    THREAD,
    WORKER,
    Changes,
    Stage,
)

_FLAGS: Final = {wire.READ: 0, wire.WRITE: 1, wire.BARRIER: 2, wire.FLUSH: 2}
"""REQ_OP_* of the block layer that the frontend makes each operation of."""


class Play(Stage):
    """Both drivers of one disk with one ring, step by step."""

    def connect(
        self,
        values: Mapping[str, object] | None = None,
        skip: Collection[str] = (),
        late: Collection[str] = (),
        **changes: Any,
    ) -> Self:
        """Negotiate, as :class:`Handshake` says; happens by itself before the first request."""
        self.connected = True
        self._rings.clear()
        offers = {
            "feature-max-indirect-segments": self.back_max_indirect,
            "frontend": self.front_offer,
            "backend": self.back_offer,
            "sectors": self.capacity,
            "info": 4 if self.read_only else 0,
        }
        for step in self.handshake.steps(offers, values or {}, skip, late):
            if step.node.startswith("ring-ref"):
                self._rings.setdefault(step.directory, []).append(step.value)
                self._emit("gt_grant", "guest1", INTERRUPT, ref=step.value)
            self.write(step)
            if step.name == "frontend 3":
                self._map_rings(skip)
        self._agree(skip, changes)
        return self

    def write(self, step: Step, skip: Collection[str] = ()) -> Self:
        """Let a driver write a value to xenstore, or switch its state."""
        if step.node == STATE:
            self._emit("xs_switch", step.source, WORKER, skip, node=step.directory, state=step.value)
        written: dict[str, Any] = {"dir": step.directory, "node": step.node, "xbt": step.xbt}
        self._emit("xs_write", step.source, WORKER, **written, value=str(step.value))
        return self

    def resize(self, sectors: int, skip: Collection[str] = ()) -> Self:
        """Let the disk get another size while it is connected."""
        self.capacity = sectors
        for step in self.handshake.resize(sectors):
            if step.name not in skip:
                self.write(step)
        return self

    def io(self, op: int = wire.WRITE, nr: int = 2, skip: Collection[str] = (), **changes: Any) -> Io:
        """Play one request from its queueing to its completion, as :meth:`push` and the others do."""
        io = self.push(op, nr, skip, **changes)
        self.take(io, skip, **changes)
        self.map(io, skip, **changes)
        self.respond(io, skip, **changes)
        self.complete(io, skip, **changes)
        return io

    def burst(self, count: int, op: int = wire.WRITE) -> Self:
        """Play so many requests at once: all are pushed before the first is taken, and so on."""
        ios = [self.push(op) for _ in range(count)]
        for io in ios:
            self.take(io)
            self.map(io)
        for step in (self.respond, self.complete):
            for io in ios:
                step(io)
        return self

    def discard(
        self, nr_sectors: int = 8, flag: int = 0, op: int = wire.DISCARD, status: int = wire.OKAY
    ) -> Io:
        """Play a discard, or what has no meaning, from its queueing to its completion."""
        io = self._next(op)
        io.status = status
        where = {"id": io.id, "sector": io.sector}
        queue: dict[str, Any] = {"rinfo": RINFO, "bytes": nr_sectors * wire.SECTOR_BYTES, **where}
        queue |= {"req_prod_pvt": self.at.req_prod, "rsp_cons": self.at.rsp_cons, "nr_ents": self.nr_ents}
        self._emit("fe_discard", "guest1", 1, **queue)
        if self.at.push():
            self._emit("ev_notify", "guest1", 1, irq=FRONT_IRQ)
        self.at.take()
        taken: dict[str, Any] = {"ring": RING, "dom": 1, "op": op, **self.at.back()}
        if op == wire.DISCARD:
            taken |= {"flag": flag, "nr_sectors": nr_sectors, "sector": io.sector}
        self._emit("be_discard" if op == wire.DISCARD else "be_other", "dom0", THREAD, id=io.id, **taken)
        self._rest((), {})
        self.respond(io)
        self.complete(io)
        return io

    def push(self, op: int = wire.WRITE, nr: int = 2, skip: Collection[str] = (), **changes: Any) -> Io:
        """Let the frontend queue a request of ``nr`` whole pages, or of the ``segments`` given."""
        indirect = nr > wire.DIRECT_SEGMENTS
        io = self._next(op)
        queue: dict[str, Any] = {
            "bytes": nr * PAGE_BYTES,
            "sector": io.sector,
            "req_prod_pvt": self.at.req_prod,
            "vdev": VDEV,
        }
        queue |= {"rinfo": RINFO, "nr_ents": self.nr_ents, "rsp_cons": self.at.rsp_cons}
        queue |= {"flags": _FLAGS[op], "pgc": len(self._grefs), "persistent": int(self.persistent)}
        queue["max_indirect"] = self._indirect
        self._emit("fe_queue", "guest1", 1, skip, changes, **queue)
        if indirect:
            io.pages = tuple(self._take_gref(skip, changes) for _ in range(0, nr, wire.SEGMENTS_PER_PAGE))
        grefs = [self._take_gref(skip, changes) for _ in range(nr)]
        io.segments = tuple(wire.Segment(gref, 0, wire.LAST_SECTOR) for gref in grefs)
        for event, page in io.pushed().items():
            self._emit(event, "guest1", 1, skip, changes, id=io.id, nr=nr, page=page)
        owed = self.at.push()
        pushed = {**io.request(), **self.at.front(pushed=1), "rinfo": RINFO, "irq": FRONT_IRQ}
        pushed["copy"] = int((self.persistent or self.trusted == "N") and op != wire.READ)
        self._emit("fe_push", "guest1", 1, skip, changes, **pushed)
        if owed:
            self._emit("ev_notify", "guest1", 1, skip, changes, irq=FRONT_IRQ)
        return io

    def take(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the backend take the request off the ring; ``segments`` may be changed on the way."""
        self.at.take()
        io.segments = tuple(changes.get("segments", io.segments))
        request = {**io.request(), "vbd": VDEV, "dom": 1, **self._sizes()}
        self._emit("be_request", "dom0", THREAD, skip, changes, ring=RING, **self.at.back(), **request)
        self._rest(skip, changes)

    def map(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the backend map what the request names, and hand it to the disk."""
        if io.indirect:
            self._map_call(io, io.pages, True, skip, changes)
            self._read(io, skip, changes)
            self._give_back(io, skip, changes)
        grefs = [segment.gref for segment in io.segments]
        if not self._map_call(io, grefs, io.op != wire.READ, skip, changes):
            io.failed, io.status = True, wire.ERROR
            return
        bios: dict[str, Any] = {"ring": RING, "id": io.id, "nbio": 1, "bytes": io.sectors * wire.SECTOR_BYTES}
        bios["opf"] = 1 | wire.PREFLUSH if io.op in (wire.BARRIER, wire.FLUSH) else int(io.op != wire.READ)
        self._emit("be_submit", "dom0", THREAD, skip, changes, sector=io.sector, **bios)

    def respond(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the disk be done: the backend gives back what it used and answers."""
        if (io.segments or io.op == wire.FLUSH) and not io.failed:
            self._emit("be_io_end", "dom0", self.interrupted, skip, changes, ring=RING, id=io.id)
        if not changes.get("respond_first"):
            self._give_back(io, skip, changes)
        answer: dict[str, Any] = {"ring": RING, "id": io.id, "op": io.op, "status": io.status, "dom": 1}
        answer |= {"irq": BACK_IRQ, **self.at.back()}
        self._emit("be_response", "dom0", self.interrupted, skip, changes, **answer)
        if self.at.respond():
            self._emit("ev_notify", "dom0", self.interrupted, skip, changes, irq=BACK_IRQ)
        self._give_back(io, skip, changes)

    def complete(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the frontend take the response, end or keep its grants and free the id."""
        look = {"rinfo": RINFO, "rsp_cons": self.at.rsp_cons, "s_rsp_prod": self.at.rsp_prod}
        self._emit("fe_irq", "guest1", 0, skip, changes, nr_ents=self.nr_ents, **look)
        answered = {"id": io.id, "op": io.op, "status": io.status}
        if io.op != wire.DISCARD:
            self._emit("fe_response", "guest1", 0, skip, changes, rinfo=RINFO, **answered)
        for gref in (*(segment.gref for segment in io.segments), *io.pages):
            ended = gref not in self.tree
            self._emit("gt_try_end", "guest1", 0, skip, changes, ref=gref)
            if ended:
                self._end_grant(gref, skip, changes)
            else:
                self._grefs.append(gref)
        if io.op == wire.DISCARD:
            self._emit("fe_recycle", "guest1", 0, skip, changes, rinfo=RINFO, id=io.id)
        self.at.complete()
        self._emit("ev_eoi", "guest1", 0, skip, changes, irq=FRONT_IRQ)
        assert self._ids is not None
        self._ids.append(io.id)

    def free(self, gref: int) -> Self:
        """Let the frontend free the reference of a grant that it keeps."""
        self._grefs.remove(gref)
        self._end_grant(gref, (), {})
        return self

    def recall(self) -> Self:
        """Let the frontend try to end every grant that it keeps, as Linux does every 10 s."""
        for gref in self._grefs[::-1]:
            self._emit("gt_try_end", "guest1", WORKER, ref=gref)
            if gref not in self.tree:
                self._grefs.remove(gref)
                self._end_grant(gref, (), {})
        return self

    def purge(self, grefs: Sequence[int], skip: Collection[str] = ()) -> Self:
        """Let the backend drop grants that are not in use from its tree."""
        self._emit("be_purge", "dom0", THREAD, skip, None, ring=RING, **self._sizes())
        self._emit("be_purge_work", "dom0", WORKER, skip)
        ops = [self.tree.pop(gref) for gref in grefs]
        self._unmap_in_batches(ops, skip, {})
        return self

    def close(self, skip: Collection[str] = (), **changes: Any) -> Self:
        """Let both sides tear the disk down; does nothing the second time."""
        if self.closed or not self.connected:
            return self
        self.closed = True
        self.write(Step("guest1", FRONT, STATE, 6))
        self._disconnect(skip, changes)
        if self.tree:
            sizes = self._sizes()
            free = {"num": len(self.tree), "ring": RING}
            self._emit("be_free_persistent", "dom0", WORKER, skip, changes, **free, **sizes)
            self._unmap_in_batches(list(self.tree.values()), skip, changes)
            self.tree.clear()
        self.write(Step("dom0", BACK, STATE, 6), skip)
        return self.lose_ring(skip, **changes)

    def lose_ring(self, skip: Collection[str] = (), **changes: Any) -> Self:
        """Let the frontend free its ring with all that is in flight, as at the end and when it resumes."""
        self._emit("fe_free", "guest1", 1, skip, changes, rinfo=RINFO)
        of_rings = [gref for pages in self._rings.values() for gref in pages]
        for gref in (*sorted(self._granted), *of_rings):
            self._emit("gt_end", "guest1", 1, skip, changes, ref=gref)
            self._emit("gt_put_free", "guest1", 1, () if gref in of_rings else skip, changes, ref=gref)
        return self

    def reconnect(self, skip: Collection[str] = (), **changes: Any) -> Self:
        """Let both sides begin anew with an empty ring; the backend has nothing kept by then."""
        if not self.closed:
            self._disconnect(skip, changes)
            self.write(Step("dom0", BACK, STATE, 6), skip)
        self.at, self._ids, self.closed = Indices(nr_ents=self.nr_ents), None, False
        for left in (self._grefs, self._granted, self._rings):
            left.clear()
        self.write(Step("guest1", FRONT, STATE, 1))
        self._emit("be_fe_changed", "dom0", WORKER, skip, changes, node=BACK, state=1)
        known = {"feature-max-indirect-segments", "multi-queue-max-queues", "max-ring-page-order"}
        return self.connect(skip={*skip, *known}, **changes)

    def _agree(self, skip: Collection[str], changes: Changes) -> None:
        shared: dict[str, Any] = {"nr_rings": len(self._rings), "nr_ring_pages": 1 << self.handshake.order}
        own = {"feature_persistent": int(self.back_parameter == "Y"), "max_persistent_grants": self.cap}
        own |= {"persistent": int(self.keeps), "dom": 1, "vbd": VDEV}
        self._emit("be_connect", "dom0", WORKER, skip, changes, **shared, **own)
        self._emit("be_thread_start", "dom0", THREAD, skip, changes, ring=RING)
        own = {"feature_persistent": int(self.front_parameter == "Y"), "persistent": int(self.persistent)}
        own |= {"max_indirect": self._indirect, "max_indirect_segments": self.max_indirect, "vdev": VDEV}
        own |= {"bounce": int(self.persistent or self.trusted == "N"), "trusted": int(self.trusted == "Y")}
        self._emit("fe_connect", "guest1", 1, skip, changes, rinfo=RINFO, **shared, **own)

    def _disconnect(self, skip: Collection[str], changes: Changes) -> None:
        self._emit("be_fe_changed", "dom0", WORKER, skip, changes, node=BACK, state=6)
        self._emit("be_thread_stop", "dom0", THREAD, skip, changes, ring=RING)
        for pages in self._rings.values():
            self._emit("gt_unmap_ring", "dom0", WORKER, node=BACK)
            for _ in pages:
                self._emit("xen_unmap", "xen", -1, dom=1)

    def _next(self, op: int) -> Io:
        if not self.connected:
            self.connect()
        if self._ids is None:
            self._ids = list(range(self.nr_ents - 1, -1, -1))
        return Io(self._ids.pop(), self.at.req_prod, op, 8 * self.at.req_prod, (), status=self.status)

    def _map_rings(self, skip: Collection[str]) -> None:
        for pages in self._rings.values():
            self._emit("gt_map_ring", "dom0", WORKER, skip, node=BACK, n=len(pages), gref=pages[0])
            for _ in pages:
                self._emit("xen_map", "xen", -1, dom=1)
