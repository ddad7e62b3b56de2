"""From the EventTable to what the page shows of trace, features and ring."""

from dataclasses import replace

from blkproof.analysis.report.collect import features_of, quality_of, ring_at
from blkproof.analysis.verdict import Bound
from blkproof.traces.stream import FOREVER, LossWindow
from blkproof.traces.table import EventTable

from tests.analysis.report.conftest import TWICE

INDICES = {"nr_ents": 32, "s_req_prod": 40, "req_cons": 38, "rsp_prod_pvt": 36, "s_rsp_prod": 35}


def test_losses_are_added_up_by_source_and_an_unknown_number_counts_as_one() -> None:
    losses = [
        LossWindow("dom0", 0, 0, 10, 5, "dom0/trace/cpu0.raw", 0),
        LossWindow("dom0", 1, 0, FOREVER, None, "dom0/trace/cpu1.raw", 0),
    ]
    table = EventTable.from_events([("be_request", 1, {}), ("xen_map", 2, {})], losses)
    quality = quality_of(table)
    assert [(source.name, source.events, source.lost) for source in quality.sources] == [
        ("dom0", 1, 6),
        ("xen", 1, 0),
    ]
    assert quality.lost == 6
    assert quality.missing == ()


def test_a_probe_that_was_not_armed_is_missing_by_name() -> None:
    full = EventTable.from_events([])
    probes = {source: names - {"be_response"} for source, names in full.probes.items()}
    quality = quality_of(EventTable.from_events([], probes=probes))
    assert quality.missing == ("dom0 be_response",)
    assert quality.armed == sum(map(len, probes.values()))


def test_features_are_what_both_sides_wrote_and_the_frontend_then_used() -> None:
    def write(source: str, path: str, node: str, value: str) -> tuple[str, int, dict[str, str]]:
        return "xs_write", 1, {"source": source, "dir": path, "node": node, "value": value}

    persistent, indirect, queues = features_of(
        EventTable.from_events(
            [
                write("dom0", "backend/vbd/1/51712", "feature-persistent", "1"),
                write("dom0", "backend/vbd/1/51712", "feature-max-indirect-segments", "256"),
                write("dom0", "backend/vbd/1/51712", "multi-queue-max-queues", "2"),
                write("dom0", "backend/vif/1/0", "feature-persistent", "no disk"),
                write("guest1", "device/vbd/51712", "feature-persistent", "0"),
                ("fe_queue", 2, {"persistent": 0, "max_indirect": 32}),
                ("be_request", 3, {"op": 6}),
                ("be_request", 4, {"op": 1}),
            ]
        )
    )
    assert (persistent.backend, persistent.frontend, persistent.used) == ("1", "0", "off")
    assert (indirect.backend, indirect.used) == ("256", "32")
    assert indirect.evidence == {"be_request": 2, "of them indirect": 1}
    assert (queues.name, queues.backend, queues.used) == ("queues", "at most 2", "1")


def test_nothing_seen_is_no_feature() -> None:
    assert features_of(EventTable.from_events([])) == []


def test_the_ring_is_shown_as_the_last_event_of_the_finding_saw_it() -> None:
    table = EventTable.from_events(
        [
            ("fe_irq", 50, {"rsp_cons": 33}),
            ("be_request", 100, {**INDICES, "offset": 0x1A40}),
            ("fe_irq", 800, {"rsp_cons": 34}),
            ("be_response", 900, {**INDICES, "offset": 0x2B80}),
            ("fe_irq", 950, {"rsp_cons": 35}),
        ]
    )
    ring = ring_at(table, TWICE)
    assert ring is not None
    assert (ring.nr_ents, ring.req_prod, ring.req_cons, ring.rsp_prod, ring.rsp_cons) == (32, 40, 38, 35, 34)
    assert (ring.marked, ring.name) == (36, "S8")
    earlier = ring_at(table, replace(TWICE, bound=TWICE.bound[:1]))
    assert earlier is not None
    assert (earlier.marked, earlier.rsp_cons, earlier.name) == (37, 33, "Q7")


def test_a_finding_without_a_ring_has_no_picture() -> None:
    elsewhere = Bound("X", "a write", "xs_write", 1, "dom0", 0, 0, "f", 0)
    assert ring_at(EventTable.from_events([("xs_write", 1, {})]), replace(TWICE, bound=(elsewhere,))) is None


def test_a_ring_of_impossible_size_is_not_drawn() -> None:
    rows = [("be_response", 900, {**INDICES, "nr_ents": size, "offset": 0x2B80}) for size in (0, 2**31)]
    for row in rows:
        assert ring_at(EventTable.from_events([row]), TWICE) is None
