"""What a play has on its stage: how both drivers act, what they hold, and the events that come of it.

This is what :class:`blkproof.analysis.play.Play` is built on; scenes use that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self

from blkproof.analysis import wire
from blkproof.analysis.facts import Facts
from blkproof.analysis.handshake import Handshake
from blkproof.analysis.scenery import Indices, Io, map_words
from blkproof.traces.events import SEGMENTS_IN, UNMAPS_IN
from blkproof.traces.fio import FioResult
from blkproof.traces.stream import LossWindow
from blkproof.traces.table import EventTable

RING: Final = 0xFFFF_8880_0400_0000
RINFO: Final = 0xFFFF_8880_0700_0000
THREAD, INTERRUPT, WORKER = 700, 0, 30
_FIRST_GREF, _FIRST_HANDLE = 100, 40
FRONT_IRQ, BACK_IRQ = 40, 60
_ITEM: Final = 0xFFFF_8880_0900_0000
_BAD_GREF: Final = -3
PAGE_BYTES: Final = 4096
_STEP_TICKS: Final = 100

Changes = Mapping[str, Mapping[str, Any]]
Row = tuple[str, int, dict[str, Any]]


class Stage:
    """Both drivers of one disk with one ring, and the events that they leave behind."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.handshake = Handshake()
        self.losses: list[LossWindow] = []
        self.front_offer = self.back_offer = 1
        self.front_parameter = self.back_parameter = self.trusted = "Y"
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
        self.bad_grefs: set[int] = set()
        self.page_references = 1
        self.counts_none = False
        self.tsc_hz: float | None = None
        self.fio: FioResult | None = None
        self.fifo = False
        self.status = wire.OKAY
        self.connected = self.closed = False
        self.tsc = 1000
        self.interrupted = INTERRUPT
        self.at = Indices()
        self.tree: dict[int, wire.MapOp] = {}
        self.active: set[int] = set()
        self._ids: list[int] | None = None
        self._grefs: list[int] = []
        self._granted: set[int] = set()
        self._rings: dict[str, list[int]] = {}
        self._next_gref, self._next_handle = _FIRST_GREF, _FIRST_HANDLE

    def set(self, **options: Any) -> Self:
        """Change how the drivers act; raise AttributeError for an option that does not exist."""
        for name, value in options.items():
            owner = self if hasattr(self, name) else self.handshake
            if not hasattr(owner, name):
                raise AttributeError(f"Play has no option {name!r}")
            setattr(owner, name, value)
        return self

    @property
    def nr_ents(self) -> int:
        """Entries of the ring."""
        return self.at.nr_ents

    @nr_ents.setter
    def nr_ents(self, count: int) -> None:
        self.at.nr_ents = count

    def facts(self) -> Facts:
        """Return what the capture of this play would say besides its events."""
        return Facts(
            ended=self.ended,
            tsc_hz=self.tsc_hz,
            fio=self.fio,
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
                        "trusted": self.trusted,
                    }
                },
            },
        )

    def table(self, probes: Mapping[str, Collection[str]] | None = None) -> EventTable:
        """Return the events as a table."""
        return EventTable.from_events(self.rows, losses=self.losses, probes=probes)

    @property
    def persistent(self) -> bool:
        """Tell whether the frontend keeps its grants."""
        return bool(self.front_offer and self.back_offer)

    @property
    def keeps(self) -> bool:
        """Tell whether the backend keeps grants: if both offered to, unless told otherwise."""
        return self.persistent if self.back_keeps is None else self.back_keeps

    @property
    def _indirect(self) -> int:
        """Segments that the frontend puts into an indirect request at most, 0 for none."""
        effective = min(self.max_indirect, self.back_max_indirect or 0)
        return effective if effective > wire.DIRECT_SEGMENTS else 0

    def _rest(self, skip: Collection[str], changes: Changes) -> None:
        if self.at.rest():
            self._emit("ev_eoi", "dom0", THREAD, skip, changes, irq=BACK_IRQ)

    def _read(self, io: Io, skip: Collection[str], changes: Changes) -> None:
        """Let the backend read the segments in the indirect pages, and let go of these."""
        nr = len(io.segments)
        more: dict[str, Any] = {"ring": RING, "n": len(io.pages), "op": io.op}
        for event, held in SEGMENTS_IN.items():
            if nr > held.start:
                parts = io.segments[held.start : held.stop]
                words = [w for s in parts for w in (s.first * wire.SECTOR_BYTES, s.extent.sectors)]
                self._emit(event, "dom0", THREAD, skip, changes, id=io.id, nr=nr, seg=words, **more)
            more = {}

    def _map_call(
        self, io: Io, grefs: Sequence[int], ro: bool, skip: Collection[str], changes: Changes
    ) -> bool:
        start: dict[str, Any] = {"ring": RING, "n": len(grefs), "ro": int(ro), **self._sizes()}
        self._emit("be_map", "dom0", THREAD, skip, changes, **start)
        for first in range(0, len(grefs), wire.DIRECT_SEGMENTS):
            self._map_batch(io, grefs[first : first + wire.DIRECT_SEGMENTS], ro, skip, changes)
        rc = int(not self.bad_grefs.isdisjoint(grefs))
        self._emit("be_map_ret", "dom0", THREAD, skip, changes, rc=rc)
        return not rc

    def _map_batch(
        self, io: Io, grefs: Sequence[int], ro: bool, skip: Collection[str], changes: Changes
    ) -> None:
        missed = [gref for gref in grefs if not (self.keeps and self._look_up(io, gref, skip, changes))]
        flags = self.map_flags or wire.HOST_MAP | (wire.READ_ONLY if ro and not self.keeps else 0)
        ops = []
        for gref in missed:
            handle, self._next_handle = self._next_handle, self._next_handle + 1
            status = _BAD_GREF if gref in self.bad_grefs else self.map_status
            ops.append(wire.MapOp(handle << 12, flags, gref, 1, status, handle))
        if ops:
            words = [w for op in ops for w in map_words(op)]
            self._emit("gt_map", "dom0", THREAD, skip, changes, n=len(ops), ops=words)
            ops = [op for op in ops if op.status != _BAD_GREF]
            for _ in ops:
                self._emit("xen_map", "xen", -1, skip, changes, dom=1)
        for op in ops:
            if self.keeps and len(self.tree) < self.cap and op.gref not in self.tree:
                added = {"ring": RING, "gref": op.gref, "handle": op.handle, **self._sizes()}
                self._emit("be_add", "dom0", THREAD, skip, changes, **added)
                self._emit("be_add_ret", "dom0", THREAD, skip, changes, rc=0)
                self.tree[op.gref] = op
                self.active.add(op.gref)
                io.held.append(op.gref)
            else:
                io.mapped.append(op)

    def _look_up(self, io: Io, gref: int, skip: Collection[str], changes: Changes) -> bool:
        self._emit("be_get", "dom0", THREAD, skip, changes, ring=RING, gref=gref)
        kept = self.tree.get(gref) if gref not in self.misses else None
        result = {"pgnt": kept.host + 1, "gref": gref, "handle": kept.handle} if kept else {"pgnt": 0}
        self._emit("be_get_ret", "dom0", THREAD, skip, changes, **result)
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
            self._unmap(ops[first : first + wire.DIRECT_SEGMENTS], WORKER, skip, changes)

    def _unmap(self, ops: Sequence[wire.MapOp], pid: int, skip: Collection[str], changes: Changes) -> None:
        if not ops and not self.counts_none:
            return
        self._emit("gt_unmap_async", "dom0", pid, skip, changes, item=_ITEM, n=len(ops))
        for _ in ops:
            self._emit("xen_unmap", "xen", -1, skip, changes, dom=1)
        for event, held in UNMAPS_IN.items():
            if len(ops) > held.start or event == "gt_unmap":
                parts = ops[held.start : held.stop]
                words = [
                    w for op in parts for w in (op.host, 0, op.handle | (self.unmap_status & 0xFFFF) << 32)
                ]
                refs = (
                    {"refs": [self.page_references] * len(parts)} if held.stop <= wire.DIRECT_SEGMENTS else {}
                )
                self._emit(event, "dom0", pid, skip, changes, n=len(ops), ops=words, **refs)

    def _take_gref(self, skip: Collection[str], changes: Changes) -> int:
        if self._grefs:
            return self._grefs.pop(0 if self.fifo else -1)
        gref, self._next_gref = self._next_gref, self._next_gref + 1
        self._granted.add(gref)
        self._emit("gt_grant", "guest1", 1, skip, changes, ref=gref)
        return gref

    def _end_grant(self, gref: int, skip: Collection[str], changes: Changes) -> None:
        self._granted.discard(gref)
        self._emit("gt_put_free", "guest1", 0, skip, changes, ref=gref)

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
