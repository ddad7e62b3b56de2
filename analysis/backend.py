"""The backend's half of the model: replays its events, in their order of time, into requests and mappings.

| event                        | Linux xen-blkback                      | what the model does                |
| ---------------------------- | -------------------------------------- | ---------------------------------- |
| be_request/discard/other     | dispatch_*_io                          | a request leaves the ring          |
| be_indirect, ..._more, _rest | xen_blkbk_parse_indirect               | its segments are known             |
| be_map, gt_map, be_map_ret   | xen_blkbk_map                          | grants are mapped for it           |
| be_get, be_add, be_put, ...  | get_/add_/put_persistent_gnt           | see :mod:`blkproof.analysis.tree`  |
| gt_unmap, ..._more, ...      | gnttab_unmap_refs                      | mappings end                       |
| be_response                  | make_response, before its lock         | the request is answered            |

One kernel thread per ring takes requests and maps; bios end, grants are put back and responses are written
by any thread or interrupt.  So mapping is followed by thread, everything else by ring, id and handle: an
interrupt carries the pid of the thread that it interrupted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from blkproof.analysis import wire
from blkproof.analysis.entities import (
    Adding,
    BackHalf,
    BackRing,
    Device,
    Entry,
    Known,
    Lookup,
    MapCall,
    Mapping,
    Teardown,
    TreeUnmap,
    Unmapping,
)
from blkproof.analysis.tree import Tree
from blkproof.traces.events import SEGMENTS_IN, UNMAPS_IN, Event

_IMPLIED_OPERATION: Final = {"be_discard": wire.DISCARD}


class _Thread:
    """What one kernel thread of the backend is doing."""

    def __init__(self) -> None:
        self.half: BackHalf | None = None
        self.call: MapCall | None = None
        self.lookup: Lookup | None = None
        self.adding: Adding | None = None


class BackReplay:
    """Feed it every backend event in order; then read ``rings``, ``mappings`` and ``unmappings``.

    Only grants that were mapped inside the block backend's own mapping function are followed: other drivers
    of the same domain map grants too.  ``mapped_of`` and ``unmapped_of`` are the ticks of those of all
    drivers, by the domid that granted them.
    """

    def __init__(self) -> None:
        self.rings: list[BackRing] = []
        self.mappings: list[Mapping] = []
        self.unmappings: list[Unmapping] = []
        self.mapped_of: defaultdict[int, list[int]] = defaultdict(list)
        self.unmapped_of: defaultdict[int, list[int]] = defaultdict(list)
        self._submits = False
        self._current: dict[int, BackRing] = {}
        self._threads: dict[tuple[str, int], _Thread] = {}
        # A handle is free for a new mapping before the event of its unmap is recorded; the address differs.
        self._live: dict[tuple[int, int], Mapping] = {}
        self._last: dict[int, Mapping] = {}
        self._domain: dict[int, int] = {}
        self.handlers: Final[dict[str, Callable[[Event], None]]] = {
            "be_request": self._taken,
            "be_discard": self._taken,
            "be_other": self._taken,
            **dict.fromkeys(SEGMENTS_IN, self._indirect),
            "be_thread_stop": self._thread_stop,
            "be_map": self._map,
            "be_map_ret": self._map_ret,
            "be_get": self._get,
            "be_get_ret": self._get_ret,
            "be_add": self._add,
            "be_add_ret": self._add_ret,
            "be_put": self._put,
            "be_purge": self._purge,
            "be_free_persistent": self._free_persistent,
            "be_submit": self._submit,
            "be_io_end": self._io_end,
            "be_response": self._response,
            "gt_map": self._gt_map,
            **dict.fromkeys(UNMAPS_IN, self._gt_unmap),
        }

    # Section: requests

    def _taken(self, event: Event) -> None:
        index = (event.req_cons - 1) & wire.INDEX_MASK
        ring = self._ring_of_request(event, index)
        op = _IMPLIED_OPERATION.get(event.event, event.op)
        half = BackHalf(ring, index, event.id, op, event)
        half.same_id = ring.open.get(event.id)
        ring.halves.append(half)
        if half.has_data and not half.indirect:
            segments = wire.direct_segments(event)
            half.segments = tuple(segment.extent for segment in segments)
            self._uses(half, [segment.gref for segment in segments])
        ring.open[event.id] = half
        self._thread(event).half = half
        if half.has_data:
            self._size(ring, event)

    def _indirect(self, event: Event) -> None:
        half = self._current_half(event)
        if half is None or half.id != event.id or not half.indirect:
            self._thread(event).half = None
            return
        call = half.calls[-1] if half.calls else None
        if call is not None and (not call.indirect or call.end is None or call.end.rc):
            # Its indirect pages, or later its data, could not be mapped: nothing was read from them now.
            return
        if event.event == "be_indirect":
            half.read = event
        half.parts |= wire.indirect_segments(event)
        if half.nr == event.nr == len(half.parts):
            half.segments = tuple(half.parts[number] for number in sorted(half.parts))

    def _thread_stop(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is not None:
            ring.stopped = event

    def _uses(self, half: BackHalf, grefs: list[int]) -> None:
        using = half.ring.using
        for gref in grefs:
            if gref in using:
                half.clashes.append((gref, using[gref]))
            using[gref] = half
        half.grefs = tuple(grefs)

    def _submit(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        half = ring.open.get(event.id) if ring else None
        self._submits = True
        if half is not None and half.submit is None:
            half.submit = event

    def _io_end(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is None:
            return
        half = ring.open.get(event.id)
        # A bio that ends after its request was answered may find the next request of that id.
        if half is not None and (half.submit is not None or not self._submits):
            half.io_ends.append(event)
        else:
            answered = (h for h in reversed(ring.halves) if h.id == event.id and h.response)
            ring.late_ends.append((event, next(answered, None)))

    def _response(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is None:
            return
        ring.responses.append(event)
        half = ring.open.pop(event.id, None)
        if half is None:
            answered = (h for h in reversed(ring.halves) if h.id == event.id and h.response)
            ring.stray.append((event, next(answered, None)))
            return
        half.response = event
        for gref in half.grefs or ():
            if ring.using.get(gref) is half:
                del ring.using[gref]
        half.left_held = tuple(entry.seen() for entry in half.held.values())
        half.left_mapped = tuple(
            m for m in half.mappings if m.entry is None and m.unmapped is None and not m.hidden
        )

    # Section: mapping

    def _map(self, event: Event) -> None:
        thread = self._thread(event)
        half = self._current_half(event)
        if half is not None and half.ring.address != event.ring:
            half = None
        thread.call = MapCall(event, half, half is not None and half.indirect and not half.read)
        if half is not None:
            half.calls.append(thread.call)
        self._size(self._current.get(event.ring), event)

    def _map_ret(self, event: Event) -> None:
        thread = self._thread(event)
        if thread.call is not None:
            thread.call.end = event
            if not thread.call.indirect:
                self._mapped(thread.call)
                thread.half = None
        thread.call = None

    def _mapped(self, call: MapCall) -> None:
        """Take in the grants of an indirect request: they were read from its pages, and then mapped."""
        half = call.half
        if half is None or not half.indirect or not half.nr == call.start.n == len(call.grefs):
            return
        self._uses(half, [*half.taken.indirect_gref[: wire.indirect_pages(half.nr)], *call.grefs])

    def _gt_map(self, event: Event) -> None:
        call = self._thread(event).call
        ops = wire.map_ops(event)
        for op in ops:
            if op.status == wire.OKAY:
                self.mapped_of[op.dom].append(event.tsc)
                self._domain[op.handle] = op.dom
        if call is None:
            return
        ring = self._current.get(call.start.ring)
        if not call.lookups:
            call.grefs += [op.gref for op in ops]
        for op in ops:
            if op.status != wire.OKAY:
                call.failed.append(op)
                continue
            mapping = Mapping(op, event, call)
            if ring is not None:
                seen = ring.tree.seen(op.gref)
                mapping.again = seen if seen.known is Known.FREE else None
            call.mappings.append(mapping)
            self.mappings.append(mapping)
            self._live[op.handle, op.host] = mapping
            self._last[op.handle] = mapping

    def _gt_unmap(self, event: Event) -> None:
        owner = None
        for op in wire.unmap_ops(event):
            domid = self._domain.get(op.handle)
            if domid is not None and op.status == wire.OKAY:
                self.unmapped_of[domid].append(event.tsc)
            before = self._last.get(op.handle)
            if before is None:
                continue
            mapping = self._live.get((op.handle, op.host))
            if mapping is None and op.status == wire.OKAY:
                # Xen took it, so it was another driver's mapping that got this handle after ours.
                continue
            self.unmappings.append(Unmapping(event, op, mapping, before))
            if mapping is not None and op.status == wire.OKAY:
                owner = mapping.call.half or owner
                self._unmapped(event, mapping)
        if owner is not None and wire.unseen_unmaps(event):
            for mapping in owner.mappings:
                mapping.hidden = mapping.unmapped is None

    def _unmapped(self, event: Event, mapping: Mapping) -> None:
        del self._live[mapping.op.handle, mapping.op.host]
        mapping.unmapped = event
        entry = mapping.entry
        ring = self._current.get(mapping.call.start.ring)
        if entry is None or ring is None:
            return
        in_tree = ring.tree.entry(entry.gref) is entry
        due = not in_tree or ring.tree.may_go(entry.gref)
        ring.unmaps.append(TreeUnmap(event, entry.seen(), due))
        if in_tree:
            ring.tree.remove(event, entry.gref)

    # Section: the persistent tree

    def _get(self, event: Event) -> None:
        thread = self._thread(event)
        ring = self._current.get(event.ring)
        if ring is None:
            return
        thread.lookup = Lookup(event, ring.tree.seen(event.gref))
        if thread.call is not None:
            thread.call.lookups.append(thread.lookup)
            thread.call.grefs.append(event.gref)

    def _get_ret(self, event: Event) -> None:
        thread = self._thread(event)
        lookup, thread.lookup = thread.lookup, None
        ring = self._current.get(lookup.event.ring) if lookup else None
        if lookup is None or ring is None:
            return
        lookup.result = event
        gref = lookup.event.gref
        if lookup.hit and event.gref != gref:
            # Records between the two may be lost: this tells nothing of the tree.
            return
        if not lookup.hit:
            ring.tree.missed(event, gref)
            return
        half = thread.call.half if thread.call else None
        entry = ring.tree.entry(gref) or Entry(gref, event.handle, None, True, event, half)
        entry.holder = half
        ring.tree.found(event, entry)
        if half is not None:
            half.held[gref] = entry

    def _add(self, event: Event) -> None:
        thread = self._thread(event)
        ring = self._current.get(event.ring)
        if ring is None:
            return
        self._size(ring, event)
        made = thread.call.mappings if thread.call else []
        mapping = next((m for m in reversed(made) if m.op.handle == event.handle), None)
        seen = ring.tree.seen(event.gref)
        twice = seen if seen.known in (Known.FREE, Known.BUSY) else None
        thread.adding = Adding(event, thread.call, mapping, twice)
        ring.addings.append(thread.adding)

    def _add_ret(self, event: Event) -> None:
        thread = self._thread(event)
        adding, thread.adding = thread.adding, None
        ring = self._current.get(adding.event.ring) if adding else None
        if adding is None or ring is None:
            return
        adding.result = event
        if not adding.done:
            return
        half = adding.call.half if adding.call else None
        entry = Entry(adding.event.gref, adding.event.handle, adding.mapping, True, event, half)
        ring.tree.add(event, entry)
        if adding.mapping is not None:
            adding.mapping.entry = entry
        if half is not None:
            half.held[entry.gref] = entry

    def _put(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is None:
            return
        entry = ring.tree.entry(event.gref)
        if entry is not None and entry.holder is not None:
            entry.holder.held.pop(event.gref, None)
        ring.puts.append((event, entry.seen() if entry is not None else None))
        ring.tree.put(event, event.gref)

    def _purge(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is not None:
            self._size(ring, event)
            ring.purges.append(event)
            ring.tree.scan()

    def _free_persistent(self, event: Event) -> None:
        ring = self._current.get(event.ring)
        if ring is not None:
            ring.teardowns.append(Teardown(event, len(ring.tree)))
            ring.tree.emptying = event

    def _size(self, ring: BackRing | None, event: Event) -> None:
        if ring is not None:
            ring.tree.resize(event, event.pgc)
            ring.sizes.append((event, event.pgc))

    # Section: who

    def _ring_of_request(self, event: Event, index: int) -> BackRing:
        ring = self._current.get(event.ring)
        if ring is None or (index == 0 and ring.halves):
            vdev = event.vbd if event.event == "be_request" else -1
            size = event.pgc if event.event == "be_request" else None
            ring = BackRing(event.ring, Device(event.dom, vdev), Tree(event, size))
            self._current[event.ring] = ring
            self.rings.append(ring)
        if ring.device.vdev < 0 and event.event == "be_request":
            ring.device = Device(event.dom, event.vbd)
        return ring

    def _thread(self, event: Event) -> _Thread:
        key = (event.source, event.pid)
        thread = self._threads.get(key)
        if thread is None:
            thread = self._threads[key] = _Thread()
        return thread

    def _current_half(self, event: Event) -> BackHalf | None:
        half = self._thread(event).half
        return half if half is not None and half.response is None else None
