"""Decoding rates on this machine, beside peers that read the same bytes.

    .venv/bin/python benchmarks/decode.py [CAPTURE]

xentrace: million records per second, beside a loop over ``struct.unpack_from``.  ftrace: the pages that dom0
recorded in CAPTURE (without it, in a run of ``basic`` made for this), many times one after the other, decoded
to columns with all fields, beside ``trace-cmd report`` to /dev/null.  Goals: 100 M records of xentrace a
second, ftrace 20 times faster than trace-cmd.  Both read files that the kernel has in its page cache.
"""

import ctypes
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trace_dat import repeat_pages, write_trace_dat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from blkproof.traces import ftrace, xentrace  # noqa: E402 - the writers live beside the package
from blkproof.traces.stream import Stream  # noqa: E402

from tests.writers import xentrace_writer as xen  # noqa: E402
from tests.writers.capture_writer import unsealed  # noqa: E402

ROUNDS = 7
RECORDS = 7_000_000
CHUNK = 10_000
PEER_BYTES = 20_000_000
FTRACE_BYTES = 64_000_000
FOREIGN_ROUNDS = 3


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


def best(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Return the seconds of the fastest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def memory_kb(field: str) -> int:
    """Return VmRSS, the memory that this process has, or VmHWM, the most that it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_memory(size: int, run: Callable[[], list[Stream]]) -> None:
    """Print what ``run`` takes of memory, at its peak, for a file of ``size`` bytes."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    before = memory_kb("VmRSS")
    streams = run()
    peak = (memory_kb("VmHWM") - before) * 1024
    columns = [c for s in streams for c in (s.kind, s.tsc, s.cpu, s.pid, s.offset)]
    columns += [c for s in streams for fields in s.payload.values() for c in fields.values()]
    result = sum(column.nbytes for column in columns)
    print(f"  memory: {peak >> 20} MB, for {result >> 20} MB of columns from a file of {size >> 20} MB")


def recorded(folder: Path) -> Path:
    """Run ``basic`` and return its capture."""
    blkproof = Path(sys.executable).with_name("blkproof")
    subprocess.run([blkproof, "run", "basic", "--out", folder / "runs"], check=False, stdout=sys.stderr)
    return next(path.parent for path in (folder / "runs").rglob("manifest.json"))


def xentrace_rates(folder: Path) -> None:
    path = folder / "xentrace.bin"
    records, size = xentrace_file(path, RECORDS), path.stat().st_size
    seconds = best(lambda: xentrace.decode(path, path.name))
    data = path.read_bytes()[:PEER_BYTES]
    begin = time.perf_counter()
    plain = sum(peer(data).values()) / (time.perf_counter() - begin)
    print(f"xentrace: {records / seconds / 1e6:.0f} M records/s, {size / seconds / 1e6:.0f} MB/s")
    print(f"  the same in plain Python: {plain / 1e6:.1f} M records/s")
    print_memory(size, lambda: [xentrace.decode(path, path.name)])


def ftrace_rates(folder: Path, capture: Path) -> None:
    trace = folder / "many" / "dom0" / "trace"
    shutil.copytree(capture / "dom0" / "trace", trace)
    pages = max(trace.glob("cpu*.raw"), key=lambda path: path.stat().st_size)
    for path in trace.glob("cpu*.raw"):
        if path != pages:
            path.unlink()
    size = pages.stat().st_size
    repeat_pages(capture / "dom0" / "trace" / pages.name, pages, -(-FTRACE_BYTES // size))
    many, size = unsealed(folder / "many"), pages.stat().st_size
    seconds = best(lambda: ftrace.decode(many, "dom0"))
    (stream,) = ftrace.decode(many, "dom0").streams
    events = sum(stream.counts.values())
    print(f"ftrace: {events / seconds / 1e6:.1f} M events/s, {size / seconds / 1e6:.0f} MB/s")
    print_memory(size, lambda: list(ftrace.decode(many, "dom0").streams))
    if shutil.which("trace-cmd") is None:
        sys.exit("  trace-cmd is not there to compare with: apt install trace-cmd")
    dat = folder / "trace.dat"
    write_trace_dat(dat, trace, pages)
    report = ["trace-cmd", "report", "-i", str(dat)]
    lines = subprocess.run(report, capture_output=True, check=True).stdout.count(b"[000]")
    if lines != events:
        sys.exit(f"  trace-cmd report prints {lines} events, the decoder found {events}")
    peer_s = best(lambda: subprocess.run(report, stdout=subprocess.DEVNULL, check=True), FOREIGN_ROUNDS)
    print(f"  trace-cmd report: {events / peer_s / 1e6:.2f} M events/s of the same {events:,}")
    print(f"  {peer_s / seconds:.0f} times faster")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        xentrace_rates(folder)
        ftrace_rates(folder, Path(sys.argv[1]) if len(sys.argv) > 1 else recorded(folder))


if __name__ == "__main__":
    main()
