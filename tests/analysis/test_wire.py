"""Words of the protocol, from the bytes of their structs, packed here a second time by struct."""

import struct
from types import SimpleNamespace

from blkproof.analysis import wire
from blkproof.traces.events import SEGMENTS_IN, UNMAPS_IN


def words(data):
    return struct.unpack(f"<{len(data) // 8}Q", data)


def test_map_operation():
    data = struct.pack("<QIIHhIQ", 0xFFFF888001234000, 6, 523, 1, -3, 77, 0x1000)
    event = SimpleNamespace(n=1, ops=words(data) + (9,) * 40)
    assert wire.map_ops(event) == [wire.MapOp(0xFFFF888001234000, 6, 523, 1, -3, 77)]


def test_an_unmap_call_is_held_by_several_events():
    data = [struct.pack("<QQIhxx", 0x5000 + n, 0, 40 + n, -(n % 3)) for n in range(300)]
    expected = [wire.UnmapOp(0x5000 + n, 40 + n, -(n % 3)) for n in range(300)]
    for calls in (0, 1, 11, 12, 43, 170, 256, 300):
        ops = []
        for name, held in UNMAPS_IN.items():
            event = SimpleNamespace(event=name, n=calls, ops=words(b"".join(data[held.start : held.stop])))
            ops += wire.unmap_ops(event)
        assert ops == expected[: min(calls, 284)]
        assert wire.unseen_unmaps(event) == max(0, calls - 284)


def test_direct_segments_are_those_announced_and_never_more_than_the_ring_holds():
    data = b"".join(struct.pack("<IBBxx", 500 + n, n % 8, 7) for n in range(11))
    event = SimpleNamespace(nr=2, seg=words(data))
    assert wire.direct_segments(event) == (wire.Segment(500, 0, 7), wire.Segment(501, 1, 7))
    event.nr = 255
    assert len(wire.direct_segments(event)) == 11


def test_an_indirect_request_is_held_by_several_events():
    data = [struct.pack("<QII", n % 8 * 512, 8 - n % 8, 0xDEAD) for n in range(256)]
    for nr in (-1, 1, 32, 33, 161, 256, 4096):
        found = {}
        for name, held in SEGMENTS_IN.items():
            seg = words(b"".join(data[held.start : held.stop]))
            found |= wire.indirect_segments(SimpleNamespace(event=name, nr=nr, seg=seg))
        assert found == {n: wire.Extent(n % 8, 7) for n in range(max(0, min(nr, 256)))}


def test_indirect_pages():
    assert [wire.indirect_pages(n) for n in (0, 1, 512, 513)] == [0, 1, 1, 2]
