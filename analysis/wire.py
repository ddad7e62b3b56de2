"""Words of the protocol as they stand in events: operations, segments, grant map and unmap operations.

References: blkif.h (struct blkif_request, struct blkif_request_segment), grant_table.h
(struct gnttab_map_grant_ref, struct gnttab_unmap_grant_ref), xen-blkback common.h (struct seg_buf).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blkproof.traces.events import (
    MAP_OP_WORDS,
    PUSHED_IN,
    SEG_BUF_WORDS,
    SEGMENTS_IN,
    UNMAP_OP_WORDS,
    UNMAPS_IN,
    Event,
)

READ: Final = 0
WRITE: Final = 1
BARRIER: Final = 2
FLUSH: Final = 3
DISCARD: Final = 5
INDIRECT: Final = 6
OPERATIONS: Final = {
    READ: "read",
    WRITE: "write",
    BARRIER: "write barrier",
    FLUSH: "flush",
    DISCARD: "discard",
    INDIRECT: "indirect",
}

OKAY: Final = 0
ERROR: Final = -1
NOT_SUPPORTED: Final = -2

DIRECT_SEGMENTS: Final = 11
"""BLKIF_MAX_SEGMENTS_PER_REQUEST."""
SEGMENTS_PER_PAGE: Final = 512
"""Segments of 8 bytes in one indirect page of 4 KiB."""
LAST_SECTOR: Final = 7
"""Last 512-byte sector of a granted page."""
SECTOR_BYTES: Final = 512
PREFLUSH: Final = 1 << 18
"""REQ_PREFLUSH in the flags of a bio: its device has to write its cache before."""
DISCARD_SECURE: Final = 1
"""BLKIF_DISCARD_SECURE."""
INDEX_MASK: Final = 0xFFFF_FFFF

HOST_MAP: Final = 2
"""GNTMAP_host_map."""
READ_ONLY: Final = 4
"""GNTMAP_readonly."""

_LOW = 0xFFFF_FFFF
_MAPS_SEEN = 11


class Extent(NamedTuple):
    """What a segment covers of its page: its first and last 512-byte sector."""

    first: int
    last: int

    @property
    def sectors(self) -> int:
        """Length in 512-byte sectors; not positive when the segment is malformed."""
        return self.last - self.first + 1


class Segment(NamedTuple):
    """One segment of a request: a grant, and what it covers of that page."""

    gref: int
    first: int
    last: int

    @property
    def extent(self) -> Extent:
        """What it covers of its page."""
        return Extent(self.first, self.last)


class MapOp(NamedTuple):
    """One grant map operation after the hypercall; ``status`` 0 is success."""

    host: int
    flags: int
    gref: int
    dom: int
    status: int
    handle: int


class UnmapOp(NamedTuple):
    """One grant unmap operation after the hypercall; ``status`` 0 is success."""

    host: int
    handle: int
    status: int


def operation(op: int) -> str:
    """Name an operation of the ring."""
    return OPERATIONS.get(op, f"operation {op}")


def map_ops(event: Event) -> list[MapOp]:
    """Take the operations of a ``gt_map`` apart."""
    words = event.ops
    ops = []
    for at in range(0, min(event.n, _MAPS_SEEN) * MAP_OP_WORDS, MAP_OP_WORDS):
        host, middle, tail = words[at], words[at + 1], words[at + 2]
        ops.append(MapOp(host, middle & _LOW, middle >> 32, tail & 0xFFFF, _signed16(tail >> 16), tail >> 32))
    return ops


def unmap_ops(event: Event) -> list[UnmapOp]:
    """Take those operations of an unmap call apart that a ``gt_unmap`` or what follows it holds."""
    words = event.ops
    held = UNMAPS_IN[event.event]
    return [
        UnmapOp(words[at], words[at + 2] & _LOW, _signed16(words[at + 2] >> 32))
        for at in range(0, len(held[: max(0, event.n - held.start)]) * UNMAP_OP_WORDS, UNMAP_OP_WORDS)
    ]


def unseen_unmaps(event: Event) -> int:
    """Return how many operations of an unmap call were too many to be recorded by any event."""
    return max(0, int(event.n) - max(held.stop for held in UNMAPS_IN.values()))


def direct_segments(event: Event) -> tuple[Segment, ...]:
    """Return the segments in the ring entry of a direct request, at most DIRECT_SEGMENTS."""
    return tuple(_segment(word) for word in event.seg[: min(event.nr, DIRECT_SEGMENTS)])


def pushed_segments(event: Event) -> dict[int, Segment]:
    """Return by their number those segments that a ``fe_page`` or what follows it holds."""
    held = PUSHED_IN[event.event]
    return {number: _segment(event.page[number - held.start]) for number in held if number < event.nr}


def indirect_segments(event: Event) -> dict[int, Extent]:
    """Return by their number those segments that a ``be_indirect`` or what follows it holds."""
    extents = {}
    held = SEGMENTS_IN[event.event]
    for at, number in enumerate(each for each in held if each < event.nr):
        offset, length = event.seg[SEG_BUF_WORDS * at], event.seg[SEG_BUF_WORDS * at + 1] & _LOW
        first = offset // SECTOR_BYTES
        extents[number] = Extent(first, first + length - 1)
    return extents


def indirect_pages(segments: int) -> int:
    """Return how many indirect pages so many segments need."""
    return -(-segments // SEGMENTS_PER_PAGE)


def _segment(word: int) -> Segment:
    return Segment(word & _LOW, word >> 32 & 0xFF, word >> 40 & 0xFF)


def _signed16(value: int) -> int:
    value &= 0xFFFF
    return value - 0x1_0000 if value & 0x8000 else value
