"""Words of the protocol, from the bytes of their structs, packed here a second time by struct."""

import struct
from types import SimpleNamespace

from blkproof.analysis import wire


def words(data):
    return struct.unpack(f"<{len(data) // 8}Q", data)


def test_map_operation():
    data = struct.pack("<QIIHhIQ", 0xFFFF888001234000, 6, 523, 1, -3, 77, 0x1000)
    event = SimpleNamespace(n=1, ops=words(data) + (9,) * 40)
    assert wire.map_ops(event) == [wire.MapOp(0xFFFF888001234000, 6, 523, 1, -3, 77)]


def test_unmap_operation_and_how_many_were_not_recorded():
    data = b"".join(struct.pack("<QQIhxx", 0x5000 + n, 0, 40 + n, -n) for n in range(2))
    event = SimpleNamespace(n=2, ops=words(data))
    assert wire.unmap_ops(event) == [wire.UnmapOp(0x5000, 40, 0), wire.UnmapOp(0x5001, 41, -1)]
    assert wire.unseen_unmaps(event) == 0
    event.n = 70
    assert len(wire.unmap_ops(event)) == 2
    assert wire.unseen_unmaps(event) == 68


def test_direct_segments_are_those_announced_and_never_more_than_the_ring_holds():
    data = b"".join(struct.pack("<IBBxx", 500 + n, n % 8, 7) for n in range(11))
    event = SimpleNamespace(nr=2, seg=words(data))
    assert wire.direct_segments(event) == (wire.Segment(500, 0, 7), wire.Segment(501, 1, 7))
    event.nr = 255
    assert len(wire.direct_segments(event)) == 11


def test_parsed_segments_ignore_padding():
    event = SimpleNamespace(nr=1, gref=(9, 0), seg=(1024, 0xDEAD << 32 | 3))
    assert wire.parsed_segments(event) == (wire.Segment(9, 2, 4),)
    event.nr = -1
    assert wire.parsed_segments(event) == ()


def test_indirect_pages():
    assert [wire.indirect_pages(n) for n in (0, 1, 512, 513)] == [0, 1, 1, 2]
