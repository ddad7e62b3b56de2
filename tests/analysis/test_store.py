"""Xenstore over time, and a capture's other facts."""

import json

from blkproof.analysis import store as paths
from blkproof.analysis.entities import Device
from blkproof.analysis.facts import Facts
from blkproof.analysis.store import Store
from blkproof.traces.capture import Capture, seal
from blkproof.traces.table import EventTable

DISK = Device(1, 51712)


def writes(*rows):
    store = Store({"/local/domain/0/backend/vbd/1/51712/sectors": "8"}, {"guest1": 1})
    fields = [
        (tsc, {"source": source, "dir": directory, "node": node, "value": value})
        for tsc, source, directory, node, value in rows
    ]
    for event in EventTable.from_events([("xs_write", tsc, values) for tsc, values in fields]):
        store.write(event)
    return store


def test_values_over_time():
    store = writes(
        (10, "dom0", "backend/vbd/1/51712", "sectors", "16"),
        (20, "guest1", "device/vbd/51712", "ring-ref", "9"),
        (30, "guest1", "/local/domain/1/device/vbd/51712/queue-1", "ring-ref0", "10"),
        (40, "guest9", "device/vbd/51712", "feature-persistent", "1"),
    )
    sectors = paths.back(DISK, "sectors")
    assert [store.number(sectors, tsc) for tsc in (9, 10, 99)] == [8, 16, 16]
    assert store.at(paths.front(DISK, "ring-ref"), 19) is None
    assert [event.value for event in store.ring_pages(DISK)] == ["9", "10"]
    assert store.devices == [DISK]
    assert store.at(paths.front(DISK, "feature-persistent"), 99) is None


def test_what_a_guest_wrote_may_be_anything():
    store = writes((10, "guest1", "device/vbd/51712", "ring-page-order", "-1 "), (11, "guest1", "/", "", ""))
    assert store.number(paths.front(DISK, "ring-page-order"), 99) is None
    store = writes((10, "guest1", "device/vbd/51712", "ring-page-order", "9" * 5000))
    assert store.number(paths.front(DISK, "ring-page-order"), 99) == int("9" * 20)


def test_facts_of_a_capture_that_lacks_most(tmp_path):
    (tmp_path / "dom0" / "trace").mkdir(parents=True)
    (tmp_path / "dom0" / "trace" / "cpu0.raw").touch()
    parameters = {"xen_blkback": {"feature_persistent": "Y", "max_persistent_grants": "1056"}}
    (tmp_path / "dom0" / "parameters.json").write_text(json.dumps(parameters))
    (tmp_path / "consoles").mkdir()
    (tmp_path / "consoles" / "xen.log").write_text("(XEN) Detected 2596.102 MHz processor.\n")
    seal(tmp_path, {"ended": "stall", "settings": {"persistent": "on"}, "domids": {"guest1": 3}})
    facts = Facts.of(Capture.open(tmp_path))
    assert facts.ended == "stall"
    assert facts.switch("dom0", "xen_blkback", "feature_persistent") is True
    assert facts.number("dom0", "xen_blkback", "max_persistent_grants") == 1056
    assert facts.number("guest1", "xen_blkfront", "max_indirect_segments") is None
    assert facts.guest(3) == "guest1"
    assert facts.tsc_hz == 2596102000.0
    assert [line.split(":")[0] for line in facts.absent] == [
        "xenstore/before.txt",
        "xenstore/attached.txt",
        "gnttab_attached.txt",
        "gnttab.txt",
        "guest1/fio.json",
    ]
