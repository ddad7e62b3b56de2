"""Bytes that a real Xen 4.17 and Linux 6.1 recorded, against what the kernel itself printed of them.

The sample is one attach, 128 requests of fio and the detach, seen from dom0 by four probes.
"""

import re
import tarfile
from pathlib import Path

import pytest
from blkproof.traces.capture import Capture, seal
from blkproof.traces.table import EventTable

SAMPLE = Path(__file__).parent / "samples" / "debian12.tar.xz"
PRINTED = re.compile(
    r"\s*.+-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\] \S+\s+(?P<tsc>\d+): (?P<name>\w+): (?:\(.+?\) )?(?P<body>.*)"
)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    with tarfile.open(SAMPLE) as tar:
        tar.extractall(root)
    seal(root, {"ended": "ok"})
    return Capture.open(root)


@pytest.fixture(scope="module")
def table(capture):
    return EventTable.build(capture)


def body_of(event):
    """What the kernel prints after the name of the event, without the address of the probe."""
    match event.event:
        case "mark":
            return event.text
        case "xs_write":
            return f'xbt={event.xbt} dir="{event.dir}" node="{event.node}" value="{event.value}"'
        case "be_response":
            return f"ring={event.ring} id={event.id} op={event.op} status={event.status}"
        case "be_map_ret":
            return f"rc={event.rc}"
        case "gt_map":
            ops = [f"{op:#x}" for op in event.ops]
            return f"n={event.n} ops0={{{','.join(ops[:40])}}} ops1={{{','.join(ops[40:])}}}"


def test_every_record_is_what_the_kernel_printed(capture, table):
    lines = [line for line in capture.text("printed.txt").splitlines() if line and not line.startswith("#")]
    events = list(table.rows(source="dom0"))
    assert len(events) == len(lines) == 434
    for event, line in zip(events, lines, strict=True):
        printed = PRINTED.fullmatch(line)
        name = "tracing_mark_write" if event.event == "mark" else event.event
        assert (event.tsc, event.cpu, event.pid, name) == (
            int(printed["tsc"]),
            int(printed["cpu"]),
            int(printed["pid"]),
            printed["name"],
        )
        assert printed["body"].removesuffix(body_of(event)) in (
            "",
            f"({printed['body'][1:].split(') ')[0]}) ",
        )


def test_what_the_probes_left_out_is_told_and_nothing_was_lost(table):
    assert table.probes["dom0"] == {"mark", "xs_write", "gt_map", "be_response", "be_map_ret"}
    assert table.missing.keys() == {"dom0"}
    assert table.missing["dom0"].keys() == {"be_response"}
    assert table.losses == ()


def test_xen_saw_the_grants_that_dom0_mapped(table):
    """141 pages of data and the page of the ring, which is mapped by another way."""
    assert sum(event.n for event in table.rows(["gt_map"])) == 141
    assert table.counts["xen"] == {"MEM_PAGE_GRANT_MAP": 142, "MEM_PAGE_GRANT_UNMAP": 142}
    assert table.of("xen_map")["dom"].unique().tolist() == [1]


def test_xen_and_dom0_share_one_clock(table):
    """Xen maps a batch of grants shortly before dom0 has the result."""
    maps = table.of("xen_map")["tsc"].to_numpy()
    for event in table.rows(["gt_map"]):
        before = maps[maps < event.tsc][-event.n :]
        assert len(before) == event.n
        assert event.tsc - before[0] < 50_000_000


def test_the_small_files_are_read(capture):
    result = capture.fio("guest1")
    assert (result.read_ios, result.write_ios, result.error) == (64, 64, 0)
    assert capture.xenstore("after")["/local/domain/0/name"] == "Domain-0"
    dump = capture.grants("detached")
    assert dump.complete
    assert [(g.ref, g.pin) for g in dump.mapped_by(1, 0)] == [(0, 2), (1, 2), (0x208, 1), (0x209, 1)]
