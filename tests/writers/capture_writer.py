"""Captures for tests: what a run would leave behind, made from literal events of a simulated kernel."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blkproof.traces.capture import Capture, FileEntry, seal

from tests.writers import xentrace_writer
from tests.writers.ftrace_writer import HEADER_PAGE, TRACE_CLOCK, Probe, Ring, mark, stats

XENSTORE = '/local/domain/0/name = "Domain-0"   (n0)\n'
FIO = {
    "jobs": [
        {
            "error": 0,
            "read": {"total_ios": 10, "io_bytes": 40960, "iops": 100.5},
            "write": {"total_ios": 20, "io_bytes": 81920, "iops": 200.0},
        }
    ]
}
GNTTAB = """\
(XEN) gnttab_usage_print_all [ key 'g' pressed
(XEN) grant-table for remote d0 (v1)
(XEN)   1 frames (64 max), 4 maptrack frames (1024 max)
(XEN) no active grant table entries
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d1 (v1)
(XEN)   4 frames (64 max), 0 maptrack frames (1024 max)
(XEN) [0x008]      0 0x1f4c2 0x00000001          0 0x0000c2 0x19
(XEN) [0x00b]      0 0x1f4d0 0x00010000          0 0x0000d0 0x1d
(XEN) gnttab_usage_print_all ] done
"""
RUN = {"scenario": "basic", "settings": {}, "domids": {"guest1": 1}, "ended": "ok"}


@dataclass
class DomainTrace:
    """One domain's trace: ``probes`` armed, ``rings`` by CPU."""

    probes: list[Probe] = field(default_factory=list)
    rings: dict[int, Ring] = field(default_factory=dict)
    clock: str = TRACE_CLOCK
    profile: str = ""
    stats: dict[int, str] = field(default_factory=dict)

    def record(self, tsc: int, name: str, values: Mapping[str, Any], cpu: int = 0, pid: int = 1) -> None:
        probe = next(p for p in self.probes if p.name == name)
        self.rings.setdefault(cpu, Ring()).write(tsc, probe.encode(values, pid))

    def mark(self, tsc: int, text: str, cpu: int = 0) -> None:
        self.rings.setdefault(cpu, Ring()).write(tsc, mark(text))

    def write(self, folder: Path) -> None:
        (folder / "stats").mkdir(parents=True)
        (folder / "header_page").write_text(HEADER_PAGE)
        (folder / "trace_clock").write_text(self.clock)
        (folder / "kprobe_profile").write_text(self.profile)
        for probe in self.probes:
            group = folder / "formats" / probe.group
            group.mkdir(parents=True, exist_ok=True)
            (group / probe.name).write_text(probe.format())
        for cpu, ring in self.rings.items():
            (folder / f"cpu{cpu}.raw").write_bytes(ring.data())
            (folder / "stats" / f"cpu{cpu}").write_text(self.stats.get(cpu, stats()))


def small_domain(begin: int = 1000) -> DomainTrace:
    """A domain with two probes and a few events."""
    trace = DomainTrace(
        [Probe("gt_try_end", 1401, [("ref", "u32")]), Probe("fe_free", 1402, [("rinfo", "s32")])]
    )
    trace.mark(begin, "blkproof:armed")
    trace.record(begin + 10, "fe_free", {"rinfo": 3})
    trace.record(begin + 20, "gt_try_end", {"ref": 9})
    return trace


def write_capture(
    root: Path,
    domains: Mapping[str, DomainTrace] | None = None,
    xentrace: Iterable[bytes] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write and seal a capture in the new directory ``root``."""
    files = {
        "xenstore/before.txt": XENSTORE,
        "xenstore/after.txt": XENSTORE,
        "dom0/parameters.json": json.dumps({"xen_blkback": {"feature_persistent": "Y"}}),
        "guest1/parameters.json": json.dumps({"xen_blkfront": {"feature_persistent": "Y"}}),
        "guest1/fio.json": json.dumps(FIO),
        "gnttab.txt": GNTTAB,
        "gnttab_attached.txt": GNTTAB,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    traces = {"dom0": small_domain(), "guest1": small_domain(1005)} if domains is None else domains
    for name, trace in traces.items():
        trace.write(root / name / "trace")
    records = [xentrace_writer.grant_map(1012, 1), xentrace_writer.grant_unmap(1018, 1)]
    windows = [xentrace_writer.window(0, *records)] if xentrace is None else xentrace
    (root / "xentrace.bin").write_bytes(b"".join(windows))
    seal(root, RUN if run is None else run)
    return root


def unsealed(root: Path) -> Capture:
    """The capture that the files below ``root`` would be, for tests that look at one file many times."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return Capture(root, RUN, {name: FileEntry("", 0) for name in names}, "")
