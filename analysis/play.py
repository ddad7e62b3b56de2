"""A play of both drivers: the events that a correct Linux pair records, request by request.

Each rule's two examples are played with it, and so are the random histories of the tests.  What a scene
changes is said by name: ``play.io(WRITE, be_request={"id": 9})`` changes a field of one event,
``skip={"gt_unmap"}`` leaves an event out, and :meth:`Play.set` changes how the drivers act.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self

from blkproof.analysis import wire
from blkproof.analysis.facts import Facts
from blkproof.analysis.scenery import Indices, Io
from blkproof.traces.events import SEGMENTS_IN, UNMAPS_IN
from blkproof.traces.stream import LossWindow
from blkproof.traces.table import EventTable

VDEV: Final = 51712
RING: Final = 0xFFFF_8880_0400_0000
RINFO: Final = 0xFFFF_8880_0700_0000
_BACK: Final = f"backend/vbd/1/{VDEV}"
_FRONT: Final = f"device/vbd/{VDEV}"
_THREAD, _INTERRUPT, _WORKER = 700, 0, 30
_FIRST_GREF, _FIRST_HANDLE, _RING_GREF = 100, 40, 8
_FRONT_IRQ, _BACK_IRQ = 40, 60
_PAGE_BYTES: Final = 4096
_STEP_TICKS: Final = 100

Changes = Mapping[str, Mapping[str, Any]]
Row = tuple[str, int, dict[str, Any]]


class Play:
    """Both drivers of one disk with one ring, and the events that they leave behind."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.losses: list[LossWindow] = []
        self.front_offer = self.back_offer = 1
        self.front_parameter = self.back_parameter = "Y"
        self.back_keeps: bool | None = None
        self.max_indirect = 32
        self.back_max_indirect: int | None = 256
        self.cap = 1056
        self.capacity = 1 << 20
        self.read_only = False
        self.ended = "ok"
        self.map_flags: int | None = None
        self.map_status = 0
        self.misses: set[int] = set()
        self.unmap_status = 0
        self.connected = self.closed = False
        self.tsc = 1000
        self.interrupted = _INTERRUPT
        self.at = Indices()
        self.tree: dict[int, wire.MapOp] = {}
        self.active: set[int] = set()
        self._ids: list[int] | None = None
        self._grefs: list[int] = []
        self._granted: set[int] = set()
        self._next_gref, self._next_handle = _FIRST_GREF, _FIRST_HANDLE

    def set(self, **options: Any) -> Self:
        """Change how the drivers act; raise AttributeError for an option that does not exist."""
        for name, value in options.items():
            if not hasattr(self, name):
                raise AttributeError(f"Play has no option {name!r}")
            setattr(self, name, value)
        return self

    @property
    def nr_ents(self) -> int:
        """Entries of the ring."""
        return self.at.nr_ents

    @nr_ents.setter
    def nr_ents(self, count: int) -> None:
        self.at.nr_ents = count

    # Section: what comes out

    def facts(self) -> Facts:
        """Return what the capture of this play would say besides its events."""
        return Facts(
            ended=self.ended,
            parameters={
                "dom0": {
                    "xen_blkback": {
                        "feature_persistent": self.back_parameter,
                        "max_persistent_grants": str(self.cap),
                    }
                },
                "guest1": {
                    "xen_blkfront": {
                        "feature_persistent": self.front_parameter,
                        "max_indirect_segments": str(self.max_indirect),
                    }
                },
            },
        )

    def table(self, probes: Mapping[str, Collection[str]] | None = None) -> EventTable:
        """Return the events as a table."""
        return EventTable.from_events(self.rows, losses=self.losses, probes=probes)

    @property
    def keeps(self) -> bool:
        """Tell whether the backend keeps grants: if both offered to, unless told otherwise."""
        agreed = bool(self.front_offer and self.back_offer)
        return agreed if self.back_keeps is None else self.back_keeps

    # Section: a disk's life

    def connect(self) -> Self:
        """Negotiate; happens by itself before the first request."""
        self.connected = True
        if self.back_max_indirect is not None:
            self._store("dom0", _BACK, "feature-max-indirect-segments", self.back_max_indirect)
        self._emit("gt_grant", "guest1", _INTERRUPT, ref=_RING_GREF)
        self._emit("gt_map_ring", "dom0", _WORKER, node=_BACK, n=1, gref=_RING_GREF)
        self._emit("xen_map", "xen", -1, dom=1)
        self._store("guest1", _FRONT, "ring-ref", _RING_GREF)
        self._store("guest1", _FRONT, "feature-persistent", self.front_offer)
        self._store("dom0", _BACK, "feature-persistent", self.back_offer)
        self._store("dom0", _BACK, "sectors", self.capacity)
        self._store("dom0", _BACK, "info", 4 if self.read_only else 0)
        self._emit("be_thread_start", "dom0", _THREAD, ring=RING)
        return self

    def io(self, op: int = wire.WRITE, nr: int = 2, skip: Collection[str] = (), **changes: Any) -> Io:
        """Play one request from its queueing to its completion, as :meth:`push` and the others do."""
        io = self.push(op, nr, skip, **changes)
        self.take(io, skip, **changes)
        self.map(io, skip, **changes)
        self.respond(io, skip, **changes)
        self.complete(io, skip, **changes)
        return io

    def burst(self, count: int, op: int = wire.WRITE) -> None:
        """Play so many requests at once: all are pushed before the first is taken, and so on."""
        ios = [self.push(op) for _ in range(count)]
        for io in ios:
            self.take(io)
            self.map(io)
        for step in (self.respond, self.complete):
            for io in ios:
                step(io)

    def push(self, op: int = wire.WRITE, nr: int = 2, skip: Collection[str] = (), **changes: Any) -> Io:
        """Let the frontend queue a request of ``nr`` whole pages, or of the ``segments`` given."""
        if not self.connected:
            self.connect()
        if self._ids is None:
            self._ids = list(range(self.nr_ents - 1, -1, -1))
        indirect = nr > wire.DIRECT_SEGMENTS
        io = Io(self._ids.pop(), self.at.req_prod, op, 8 * self.at.req_prod, ())
        queue: dict[str, Any] = {
            "bytes": nr * _PAGE_BYTES,
            "sector": io.sector,
            "req_prod_pvt": self.at.req_prod,
            "vdev": VDEV,
        }
        queue |= {"rinfo": RINFO, "nr_ents": self.nr_ents, "rsp_cons": self.at.rsp_cons}
        effective = min(self.max_indirect, self.back_max_indirect or 0)
        queue["max_indirect"] = effective if effective > wire.DIRECT_SEGMENTS else 0
        self._emit("fe_queue", "guest1", 1, skip, changes, **queue)
        if indirect:
            io.pages = tuple(self._take_gref(skip, changes) for _ in range(0, nr, wire.SEGMENTS_PER_PAGE))
        grefs = [self._take_gref(skip, changes) for _ in range(nr)]
        io.segments = tuple(wire.Segment(gref, 0, wire.LAST_SECTOR) for gref in grefs)
        for event, page in io.pushed().items():
            self._emit(event, "guest1", 1, skip, changes, id=io.id, nr=nr, page=page)
        owed = self.at.push()
        pushed = {**io.request(), **self.at.front(pushed=1), "rinfo": RINFO, "irq": _FRONT_IRQ}
        self._emit("fe_push", "guest1", 1, skip, changes, **pushed)
        if owed:
            self._emit("ev_notify", "guest1", 1, skip, changes, irq=_FRONT_IRQ)
        return io

    def take(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the backend take the request off the ring; ``segments`` may be changed on the way."""
        self.at.take()
        io.segments = tuple(changes.get("segments", io.segments))
        request = {**io.request(), "vbd": VDEV, "dom": 1, **self._sizes()}
        self._emit("be_request", "dom0", _THREAD, skip, changes, ring=RING, **self.at.back(), **request)
        self.at.rest()

    def map(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the backend map what the request names, and hand it to the disk."""
        if io.indirect:
            self._map_call(io, io.pages, True, skip, changes)
            self._read(io, skip, changes)
            self._give_back(io, skip, changes)
        grefs = [segment.gref for segment in io.segments]
        self._map_call(io, grefs, io.op != wire.READ, skip, changes)
        bios: dict[str, Any] = {"ring": RING, "id": io.id, "nbio": 1, "bytes": io.sectors * wire.SECTOR_BYTES}
        self._emit("be_submit", "dom0", _THREAD, skip, changes, sector=io.sector, **bios)

    def respond(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the disk be done: the backend gives back what it used and answers."""
        self._emit("be_io_end", "dom0", self.interrupted, skip, changes, ring=RING, id=io.id)
        if not changes.get("respond_first"):
            self._give_back(io, skip, changes)
        answer: dict[str, Any] = {"ring": RING, "id": io.id, "op": io.op, "status": wire.OKAY, "dom": 1}
        answer |= {"irq": _BACK_IRQ, **self.at.back()}
        self._emit("be_response", "dom0", self.interrupted, skip, changes, **answer)
        if self.at.respond():
            self._emit("ev_notify", "dom0", self.interrupted, skip, changes, irq=_BACK_IRQ)
        self._give_back(io, skip, changes)

    def complete(self, io: Io, skip: Collection[str] = (), **changes: Any) -> None:
        """Let the frontend take the response, end or keep its grants and free the id."""
        look = {"rinfo": RINFO, "rsp_cons": self.at.rsp_cons, "s_rsp_prod": self.at.rsp_prod}
        self._emit("fe_irq", "guest1", 0, skip, changes, nr_ents=self.nr_ents, **look)
        self._emit("fe_response", "guest1", 0, skip, changes, rinfo=RINFO, id=io.id, op=io.op)
        for gref in (*(segment.gref for segment in io.segments), *io.pages):
            ended = gref not in self.tree
            self._emit("gt_try_end", "guest1", 0, skip, changes, ref=gref)
            if ended:
                self._end_grant(gref, skip, changes)
            else:
                self._grefs.append(gref)
        self.at.complete()
        assert self._ids is not None
        self._ids.append(io.id)

    def purge(self, grefs: Sequence[int], skip: Collection[str] = ()) -> Self:
        """Let the backend drop grants that are not in use from its tree."""
        self._emit("be_purge", "dom0", _THREAD, skip, None, ring=RING, **self._sizes())
        self._emit("be_purge_work", "dom0", _WORKER, skip)
        ops = [self.tree.pop(gref) for gref in grefs]
        self._unmap_in_batches(ops, skip, {})
        return self

    def close(self, skip: Collection[str] = (), **changes: Any) -> Self:
        """Let both sides tear the disk down; does nothing the second time."""
        if self.closed or not self.connected:
            return self
        self.closed = True
        self._emit("be_thread_stop", "dom0", _THREAD, skip, changes, ring=RING)
        self._emit("gt_unmap_ring", "dom0", _WORKER, node=_BACK)
        self._emit("xen_unmap", "xen", -1, dom=1)
        if self.tree:
            sizes = self._sizes()
            free = {"num": len(self.tree), "ring": RING}
            self._emit("be_free_persistent", "dom0", _WORKER, skip, changes, **free, **sizes)
            self._unmap_in_batches(list(self.tree.values()), skip, changes)
            self.tree.clear()
        self._emit("xs_switch", "dom0", _WORKER, skip, changes, node=_BACK, state=6)
        for gref in (*sorted(self._granted), _RING_GREF):
            self._emit("gt_end", "guest1", 1, skip, changes, ref=gref)
            self._emit("gt_put_free", "guest1", 1, () if gref == _RING_GREF else skip, changes, ref=gref)
        return self

    # Section: parts

    def _read(self, io: Io, skip: Collection[str], changes: Changes) -> None:
        """Let the backend read the segments in the indirect pages, and let go of these."""
        nr = len(io.segments)
        more: dict[str, Any] = {"ring": RING, "n": len(io.pages), "op": io.op}
        for event, held in SEGMENTS_IN.items():
            if nr > held.start:
                parts = io.segments[held.start : held.stop]
                words = [w for s in parts for w in (s.first * wire.SECTOR_BYTES, s.extent.sectors)]
                self._emit(event, "dom0", _THREAD, skip, changes, id=io.id, nr=nr, seg=words, **more)
            more = {}

    def _map_call(
        self, io: Io, grefs: Sequence[int], ro: bool, skip: Collection[str], changes: Changes
    ) -> None:
        start: dict[str, Any] = {"ring": RING, "n": len(grefs), "ro": int(ro), **self._sizes()}
        self._emit("be_map", "dom0", _THREAD, skip, changes, **start)
        for first in range(0, len(grefs), wire.DIRECT_SEGMENTS):
            self._map_batch(io, grefs[first : first + wire.DIRECT_SEGMENTS], ro, skip, changes)
        self._emit("be_map_ret", "dom0", _THREAD, skip, changes, rc=0)

    def _map_batch(
        self, io: Io, grefs: Sequence[int], ro: bool, skip: Collection[str], changes: Changes
    ) -> None:
        missed = [gref for gref in grefs if not (self.keeps and self._look_up(io, gref, skip, changes))]
        flags = self.map_flags or wire.HOST_MAP | (wire.READ_ONLY if ro and not self.keeps else 0)
        ops = []
        for gref in missed:
            handle, self._next_handle = self._next_handle, self._next_handle + 1
            ops.append(wire.MapOp(handle << 12, flags, gref, 1, self.map_status, handle))
        if ops:
            words = [w for op in ops for w in _map_words(op)]
            self._emit("gt_map", "dom0", _THREAD, skip, changes, n=len(ops), ops=words)
            for _ in ops:
                self._emit("xen_map", "xen", -1, skip, changes, dom=1)
        for op in ops:
            if self.keeps and len(self.tree) < self.cap and op.gref not in self.tree:
                added = {"ring": RING, "gref": op.gref, "handle": op.handle, **self._sizes()}
                self._emit("be_add", "dom0", _THREAD, skip, changes, **added)
                self._emit("be_add_ret", "dom0", _THREAD, skip, changes, rc=0)
                self.tree[op.gref] = op
                self.active.add(op.gref)
                io.held.append(op.gref)
            else:
                io.mapped.append(op)

    def _look_up(self, io: Io, gref: int, skip: Collection[str], changes: Changes) -> bool:
        self._emit("be_get", "dom0", _THREAD, skip, changes, ring=RING, gref=gref)
        kept = self.tree.get(gref) if gref not in self.misses else None
        result = {"pgnt": kept.host + 1, "gref": gref, "handle": kept.handle} if kept else {"pgnt": 0}
        self._emit("be_get_ret", "dom0", _THREAD, skip, changes, **result)
        if kept:
            self.active.add(gref)
            io.held.append(gref)
        return kept is not None

    def _give_back(self, io: Io, skip: Collection[str], changes: Changes) -> None:
        for gref in io.held:
            put = {"ring": RING, "gref": gref, "handle": self.tree[gref].handle, "active": 1}
            self._emit("be_put", "dom0", self.interrupted, skip, changes, **put)
            self.active.discard(gref)
        io.held.clear()
        self._unmap(io.mapped, self.interrupted, skip, changes)
        io.mapped.clear()

    def _unmap_in_batches(self, ops: Sequence[wire.MapOp], skip: Collection[str], changes: Changes) -> None:
        for first in range(0, len(ops), wire.DIRECT_SEGMENTS):
            self._unmap(ops[first : first + wire.DIRECT_SEGMENTS], _WORKER, skip, changes)

    def _unmap(self, ops: Sequence[wire.MapOp], pid: int, skip: Collection[str], changes: Changes) -> None:
        if not ops:
            return
        for _ in ops:
            self._emit("xen_unmap", "xen", -1, skip, changes, dom=1)
        for event, held in UNMAPS_IN.items():
            if len(ops) > held.start:
                parts = ops[held.start : held.stop]
                words = [
                    w for op in parts for w in (op.host, 0, op.handle | (self.unmap_status & 0xFFFF) << 32)
                ]
                self._emit(event, "dom0", pid, skip, changes, n=len(ops), ops=words)

    def _take_gref(self, skip: Collection[str], changes: Changes) -> int:
        if self._grefs:
            return self._grefs.pop()
        gref, self._next_gref = self._next_gref, self._next_gref + 1
        self._granted.add(gref)
        self._emit("gt_grant", "guest1", 1, skip, changes, ref=gref)
        return gref

    def _end_grant(self, gref: int, skip: Collection[str], changes: Changes) -> None:
        self._granted.discard(gref)
        self._emit("gt_put_free", "guest1", 0, skip, changes, ref=gref)

    def _store(self, source: str, directory: str, node: str, value: object) -> None:
        written: dict[str, Any] = {"dir": directory, "node": node, "value": str(value)}
        self._emit("xs_write", source, _INTERRUPT, **written)

    def _sizes(self) -> dict[str, int]:
        return {"pgc": len(self.tree), "in_use": len(self.active)}

    def _emit(
        self,
        event: str,
        source: str,
        pid: int,
        skip: Collection[str] = (),
        changes: Changes | None = None,
        **fields: Any,
    ) -> None:
        self.tsc += _STEP_TICKS
        if event in skip:
            return
        changed = dict((changes or {}).get(event, {}))
        self.rows.append((event, self.tsc, {"source": source, "pid": pid, **fields, **changed}))


def _map_words(op: wire.MapOp) -> tuple[int, int, int, int]:
    tail = op.dom | (op.status & 0xFFFF) << 16 | op.handle << 32
    return op.host, op.flags | op.gref << 32, tail, 0
