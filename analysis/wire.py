"""Words of the protocol as they stand in events: operations, segments, grant map and unmap operations.

References: blkif.h (struct blkif_request, struct blkif_request_segment), grant_table.h
(struct gnttab_map_grant_ref, struct gnttab_unmap_grant_ref), xen-blkback common.h (struct seg_buf).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blkproof.traces.events import (
    MAP_OP_WORDS,
    SEG_BUF_WORDS,
    SEGMENTS_SEEN,
    UNMAP_OP_WORDS,
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
INDEX_MASK: Final = 0xFFFF_FFFF

HOST_MAP: Final = 2
"""GNTMAP_host_map."""
READ_ONLY: Final = 4
"""GNTMAP_readonly."""

_LOW = 0xFFFF_FFFF
_MAPS_SEEN = 11


class Segment(NamedTuple):
    """One segment: a grant, and the first and last 512-byte sector in its page."""

    gref: int
    first: int
    last: int

    @property
    def sectors(self) -> int:
        """Length in 512-byte sectors; not positive when the segment is malformed."""
        return self.last - self.first + 1


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
    """Take the operations of a ``gt_unmap`` or ``gt_unmap_many`` apart."""
    words = event.ops
    seen = min(event.n * UNMAP_OP_WORDS, len(words))
    return [
        UnmapOp(words[at], words[at + 2] & _LOW, _signed16(words[at + 2] >> 32))
        for at in range(0, seen - UNMAP_OP_WORDS + 1, UNMAP_OP_WORDS)
    ]


def unseen_unmaps(event: Event) -> int:
    """Return how many operations of an unmap event were too many to be recorded."""
    return max(0, int(event.n) - len(event.ops) // UNMAP_OP_WORDS)


def direct_segments(event: Event) -> tuple[Segment, ...]:
    """Return the segments in the ring entry of a direct ``be_request``, at most DIRECT_SEGMENTS."""
    return tuple(
        Segment(word & _LOW, word >> 32 & 0xFF, word >> 40 & 0xFF)
        for word in event.seg[: min(event.nr, DIRECT_SEGMENTS)]
    )


def parsed_segments(event: Event) -> tuple[Segment, ...]:
    """Return the segments that the backend parsed (``be_map_data``), at most SEGMENTS_SEEN."""
    count = max(0, min(event.nr, SEGMENTS_SEEN))
    segments = []
    for number in range(count):
        offset, length = event.seg[SEG_BUF_WORDS * number], event.seg[SEG_BUF_WORDS * number + 1] & _LOW
        first = offset // SECTOR_BYTES
        segments.append(Segment(event.gref[number], first, first + length - 1))
    return tuple(segments)


def indirect_pages(segments: int) -> int:
    """Return how many indirect pages so many segments need."""
    return -(-segments // SEGMENTS_PER_PAGE)


def _signed16(value: int) -> int:
    value &= 0xFFFF
    return value - 0x1_0000 if value & 0x8000 else value
