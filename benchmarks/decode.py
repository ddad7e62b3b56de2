"""Decoding rates on this machine, beside plain Python: ``python benchmarks/decode.py [millions of records]``.

Prints, for xentrace, million records per second of the decoder and of a loop over ``struct.unpack_from``
on the same bytes, and for ftrace, megabytes and million records per second.
"""

import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from blkproof.traces import ftrace, xentrace  # noqa: E402 - the writers live beside the package
from blkproof.traces.capture import Capture  # noqa: E402

from tests.writers import xentrace_writer as xen  # noqa: E402
from tests.writers.capture_writer import DomainTrace, write_capture  # noqa: E402
from tests.writers.ftrace_writer import Probe  # noqa: E402

ROUNDS = 5
CHUNK = 10_000
PEER_BYTES = 20_000_000
FTRACE_PAGES = 2_000


def xentrace_file(path: Path, records: int) -> int:
    """Write windows of four CPUs with a mix of grants and other records; return how many records."""
    chance = random.Random(1)
    chunks = []
    for cpu in range(4):
        made = []
        for tsc in range(0, CHUNK * 10, 10):
            kind = chance.random()
            if kind < 0.2:
                made.append(xen.grant_map(tsc, 1) if kind < 0.1 else xen.grant_unmap(tsc, 1))
            else:
                extras = range(chance.randrange(6))
                made.append(
                    xen.record(0x20F000 + chance.randrange(1, 40), extras, tsc if kind < 0.8 else None)
                )
        chunks.append(xen.window(cpu, *made))
    with path.open("wb") as out:
        for number in range(records // CHUNK):
            out.write(chunks[number % 4])
    return records // CHUNK * CHUNK


def peer(data: bytes) -> Counter[int]:
    """Count records and read grants as one would in plain Python."""
    word, grant = struct.Struct("<I"), struct.Struct("<QI")
    counts: Counter[int] = Counter()
    grants, position = [], 0
    while position < len(data):
        (header,) = word.unpack_from(data, position)
        event = header & 0x0FFFFFFF
        counts[event] += 1
        if event in (0x10F001, 0x10F002):
            grants.append((event, *grant.unpack_from(data, position + 4)))
        position += 4 + (header >> 31) * 8 + (header >> 28 & 7) * 4
    counts[0x1F003] = 0
    return counts


def best(run: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def ftrace_capture(path: Path) -> Capture:
    """Write a capture with many pages of one CPU of dom0."""
    fields = [("ring", "u64"), ("id", "u64"), ("error", "u8")]
    trace = DomainTrace([Probe("be_io_end", 1500, fields), Probe("fe_grant", 1501, [("gref", "u32")])])
    tsc = 0
    while not trace.rings or len(trace.rings[0].pages) < 50:
        tsc += 100
        trace.record(tsc, "be_io_end", {"ring": 2**63, "id": tsc % 32, "error": 0})
        trace.record(tsc + 50, "fe_grant", {"gref": tsc})
    trace.rings[0].pages *= FTRACE_PAGES // 50
    return Capture.open(write_capture(path, {"dom0": trace}))


def main() -> None:
    """Print the rates."""
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "xentrace.bin"
        records = xentrace_file(path, int(millions * 1e6))
        size = path.stat().st_size
        seconds = best(lambda: xentrace.decode(path, path.name))
        print(f"xentrace: {records / seconds / 1e6:.0f} M records/s, {size / seconds / 1e6:.0f} MB/s")
        data = path.read_bytes()[:PEER_BYTES]
        begin = time.perf_counter()
        found = sum(peer(data).values())
        print(f"the same in plain Python: {found / (time.perf_counter() - begin) / 1e6:.1f} M records/s")
        capture = ftrace_capture(Path(folder) / "run")
        raw = capture.files["dom0/trace/cpu0.raw"].size
        seconds = best(lambda: ftrace.decode(capture, "dom0"))
        events = sum(len(stream.tsc) for stream in ftrace.decode(capture, "dom0").streams)
        print(f"ftrace: {raw / seconds / 1e6:.0f} MB/s, {events / seconds / 1e6:.1f} M records/s")


if __name__ == "__main__":
    main()
