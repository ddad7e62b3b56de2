"""Files of any size are decoded in little memory: each case runs in a process that may not have more."""

import os
import subprocess
import sys

import pytest

from tests.writers import xentrace_writer
from tests.writers.capture_writer import DomainTrace
from tests.writers.ftrace_writer import Probe

FILE_BYTES = 64 << 20
HEADROOM_BYTES = 32 << 20
"""Half of a file: neither it nor anything else that grows with it fits in."""

LIMITED = """
import resource, sys
from pathlib import Path
from blkproof.traces import ftrace, xentrace
from tests.writers.capture_writer import unsealed

def streams(root, what):
    trace = root / "xentrace.bin"
    match what:
        case "xentrace.decode": return [xentrace.decode(trace, "x")]
        case "xentrace.batches": return xentrace.batches(trace, "x")
        case "ftrace.decode": return ftrace.decode(unsealed(root), "dom0").streams
        case "ftrace.batches": return ftrace.batches(unsealed(root), "dom0")

small, large, what, headroom = sys.argv[1:]
list(streams(Path(small), what))  # loads all code
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(headroom),) * 2)
try:
    print(sum(sum(stream.counts.values()) for stream in streams(Path(large), what)))
except (MemoryError, OSError):
    print("too large")
"""


def boring():
    """Recordings of nothing that becomes an event."""
    trace = DomainTrace([Probe("not_ours", 1500, [("a", "u64[4]")])])
    for tsc in range(80):
        trace.record(tsc, "not_ours", {"a": [1] * 4})
    return trace, xentrace_writer.window(1, *[xentrace_writer.record(0x20F001, [1] * 7)] * 127)


def rich():
    """Recordings whose every record becomes an event."""
    trace = DomainTrace([Probe("gt_end", 1500, [("ref", "u32")])])
    for tsc in range(150):
        trace.record(tsc, "gt_end", {"ref": 1})
    return trace, xentrace_writer.window(1, *[xentrace_writer.grant_map(5, 1)] * 255)


def write(root, repeat, trace, window):
    trace.write(root / "dom0/trace")
    raw = root / "dom0/trace/cpu0.raw"
    raw.write_bytes(raw.read_bytes()[:4096] * repeat)
    (root / "xentrace.bin").write_bytes(window * repeat)
    return root


@pytest.fixture(scope="module", params=[boring, rich])
def recordings(request, tmp_path_factory):
    """A small and a large recording of the same kind, and whether it gives many events."""
    folder = tmp_path_factory.mktemp("large")
    paths = [write(folder / str(repeat), repeat, *request.param()) for repeat in (1, FILE_BYTES // 4096)]
    return *paths, request.param is rich


@pytest.mark.parametrize("what", ["xentrace.decode", "xentrace.batches", "ftrace.decode", "ftrace.batches"])
def test_memory_does_not_grow_with_the_file(recordings, what):
    small, large, many = recordings
    command = [sys.executable, "-c", LIMITED, small, large, what, str(HEADROOM_BYTES)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    if many and what.endswith("decode"):
        assert done.stdout.strip() == "too large", "the result itself is"
    else:
        assert int(done.stdout) % (FILE_BYTES // 4096) == 0 < int(done.stdout)
