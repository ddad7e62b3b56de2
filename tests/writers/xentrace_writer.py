"""An encoder of xentrace files that shares nothing with the decoder: written from Xen's trace.h."""

import struct
from collections.abc import Iterable


def record(event: int, extras: Iterable[int] = (), tsc: int | None = None) -> bytes:
    words = list(extras)
    if len(words) > 7:
        raise ValueError("a record has at most 7 extra words")
    header = event + len(words) * 0x10000000 + (0x80000000 if tsc is not None else 0)
    time = b"" if tsc is None else struct.pack("<Q", tsc)
    return struct.pack("<I", header) + time + struct.pack(f"<{len(words)}I", *words)


def grant_map(tsc: int, dom: int) -> bytes:
    return record(0x10F001, [dom], tsc)


def grant_unmap(tsc: int, dom: int) -> bytes:
    return record(0x10F002, [dom], tsc)


def lost(tsc: int, count: int, first_tsc: int, did: int = 0, vid: int = 0) -> bytes:
    return record(0x1F001, struct.unpack("<4I", struct.pack("<IHHQ", count, did, vid, first_tsc)), tsc)


def wrap(extras: int = 3) -> bytes:
    return record(0x1F002, [0xDEADBEEF] * extras)


def window(cpu: int, *records: bytes) -> bytes:
    data = b"".join(records)
    return record(0x1F003, [cpu, len(data)]) + data
