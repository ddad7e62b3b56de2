"""The table: order, access by row and by column, and its Parquet file."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from blkproof.traces.capture import Capture
from blkproof.traces.columns import KINDS, of_field
from blkproof.traces.errors import CaptureVersion, ClockError, DecodeError
from blkproof.traces.events import BASE, EVENTS
from blkproof.traces.table import EventTable, LossWindow
from hypothesis import given
from hypothesis import strategies as st

from tests.writers import xentrace_writer
from tests.writers.capture_writer import DomainTrace, small_domain, write_capture
from tests.writers.events import table_of
from tests.writers.ftrace_writer import Probe, Ring

LOSSES = (
    LossWindow("dom0", 1, 5, 9, 3, "dom0/trace/cpu1.raw", 4096),
    LossWindow("guest1", -1, 0, 2**64 - 1, None, "guest1/trace/kprobe_profile", 0, "fe_free"),
)


def same(one, other):
    for field in dataclasses.fields(EventTable):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        elif field.name == "index":
            assert {k: v.tolist() for k, v in a.items()} == {k: v.tolist() for k, v in b.items()}
        elif field.name == "payload":
            assert a.keys() == b.keys()
            for name, columns in a.items():
                assert columns.keys() == b[name].keys()
                for key, column in columns.items():
                    assert (column.dtype, column.shape) == (b[name][key].dtype, b[name][key].shape)
                    assert np.array_equal(column, b[name][key])
        else:
            assert a == b


def test_rows_are_in_the_order_of_time_and_tell_where_they_are_from():
    table = table_of(
        [
            ("be_request", 30, {"id": 3, "seg": [1, 2], "offset": 400, "file": "dom0/trace/cpu0.raw"}),
            ("fe_queue", 10, {"sector": 8, "cpu": 1, "pid": 77}),
            ("xen_map", 20, {"dom": 1}),
            ("mark", 20, {"text": "blkproof:load", "source": "guest2"}),
        ]
    )
    assert [(e.event, e.tsc, e.source, e.cpu, e.pid) for e in table] == [
        ("fe_queue", 10, "guest1", 1, 77),
        ("xen_map", 20, "xen", 0, -1),
        ("mark", 20, "guest2", 0, 1),
        ("be_request", 30, "dom0", 0, 1),
    ]
    request = list(table)[3]
    assert (request.file, request.offset) == ("dom0/trace/cpu0.raw", 400)
    assert request.seg == (1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert [e.event for e in table.rows(["mark", "fe_queue", "be_other"])] == ["fe_queue", "mark"]
    assert [e.event for e in table.rows(source="guest1")] == ["fe_queue"]
    assert list(table.rows([])) == []
    assert (len(table), table.count("mark"), table.count("be_other")) == (4, 1, 0)
    assert table.counts["dom0"] == {"be_request": 1}


def test_events_at_the_same_time_keep_their_order():
    names = ["gt_put_free", "fe_free", "gt_put_free", "fe_recycle", "fe_free"] * 20
    table = table_of([(name, 5, {}) for name in names])
    assert [e.event for e in table] == names
    assert [e.offset for e in table] == list(range(100))


def test_a_cpu_whose_clock_steps_back_keeps_its_order(tmp_path):
    trace = DomainTrace([Probe("fe_free", 1402, [("rinfo", "u32")])], {0: Ring()})
    for number, tsc in enumerate((1000, 1010)):
        trace.record(tsc, "fe_free", {"rinfo": number})
    trace.rings[0].flush()
    trace.record(1005, "fe_free", {"rinfo": 2})
    trace.record(1007, "fe_free", {"rinfo": 3}, cpu=1)
    write_capture(tmp_path / "run", {"dom0": trace}, [])
    table = EventTable.build(Capture.open(tmp_path / "run"))
    assert [(e.rinfo, e.tsc) for e in table.rows(["fe_free"])] == [(0, 1000), (3, 1007), (1, 1010), (2, 1005)]


def test_columns_of_one_kind():
    late, early = {"id": 1, "seg": [9]}, {"id": 2}
    table = table_of([("fe_queue", 5, {}), ("be_request", 7, late), ("be_request", 6, early)])
    frame = table.of("be_request")
    assert frame["id"].tolist() == [2, 1]
    assert frame["tsc"].tolist() == [6, 7]
    assert frame.index.tolist() == [1, 2]
    assert frame["source"].tolist() == ["dom0", "dom0"]
    scalars = [f.name for f in (*BASE, *EVENTS["be_request"].fields) if not of_field(f).length]
    assert frame.columns.tolist() == scalars
    assert table.arrays("be_request", "seg")[:, 0].tolist() == [0, 9]
    assert table.arrays("be_indirect", "seg").shape == (0, 64)
    assert table.of("be_other").shape == (0, len(BASE) + len(EVENTS["be_other"].fields))
    with pytest.raises(ValueError, match="no array"):
        table.arrays("be_request", "id")
    with pytest.raises(ValueError, match="no event 'be_reqest'"):
        table.of("be_reqest")


def test_literal_events_are_checked():
    with pytest.raises(ValueError, match="event 1: there is no event 'nonsense'"):
        table_of([("fe_free", 5, {}), ("nonsense", 6, {})])
    with pytest.raises(ValueError, match=r"fe_free has no \['ident'\]"):
        table_of([("fe_free", 5, {"ident": 5})])
    with pytest.raises(OverflowError):
        table_of([("gt_put_free", 5, {"ref": -1})])


def test_literal_tables_are_fully_armed_unless_told_otherwise():
    assert table_of([]).probes["guest1"] >= {"fe_free", "mark", "xs_write"}
    assert "fe_free" not in table_of([]).probes["dom0"]
    assert table_of([], probes={"dom0": ["be_map"]}).probes == {"dom0": frozenset({"be_map"})}


def test_build_joins_all_recorders_on_one_clock(tmp_path):
    dom0 = small_domain(1000)
    dom0.profile = "  fe_free 3 2\n"
    dom0.probes.append(Probe("gt_put_free", 1500, [("gref", "u32")]))
    windows = [
        xentrace_writer.window(0, xentrace_writer.grant_map(1012, 1), xentrace_writer.lost(1030, 4, 1020))
    ]
    write_capture(tmp_path / "run", {"dom0": dom0, "guest1": small_domain(1005)}, windows)
    table = EventTable.build(Capture.open(tmp_path / "run"))
    assert [(e.tsc, e.source, e.event) for e in table] == [
        (1000, "dom0", "mark"),
        (1005, "guest1", "mark"),
        (1010, "dom0", "fe_free"),
        (1012, "xen", "xen_map"),
        (1015, "guest1", "fe_free"),
        (1020, "dom0", "gt_try_end"),
        (1025, "guest1", "gt_try_end"),
    ]
    assert [(loss.source, loss.begin_tsc, loss.count, loss.event) for loss in table.losses] == [
        ("xen", 1020, 4, None),
        ("dom0", 0, 2, "fe_free"),
    ]
    assert table.missing == {"dom0": {"gt_put_free": ("ref",)}}
    assert table.probes["xen"] == {"xen_map", "xen_unmap"}
    assert table.counts["xen"] == {"LOST_RECORDS": 1, "MEM_PAGE_GRANT_MAP": 1}


def test_clocks_that_differ_are_refused(tmp_path):
    write_capture(tmp_path / "run", {"dom0": small_domain(1000), "guest1": small_domain(5_000_000)})
    with pytest.raises(ClockError, match="records of dom0 at 1000 to 1020 and of guest1 at 5000000"):
        EventTable.build(Capture.open(tmp_path / "run"))


def test_a_capture_without_traces_is_an_empty_table_with_nothing_armed(tmp_path):
    write_capture(tmp_path / "run", {}, [])
    table = EventTable.build(Capture.open(tmp_path / "run"))
    assert len(table) == 0
    assert table.probes == {"xen": frozenset({"xen_map", "xen_unmap"})}


def values_of(kind):
    strategies = {}
    for field in kind.fields:
        column = of_field(field)
        if column.dtype.kind == "O":
            strategies[field.name] = st.text(
                st.characters(codec="utf-8", exclude_characters="\0"), max_size=9
            )
            continue
        limits = np.iinfo(column.dtype)
        number = st.integers(int(limits.min), int(limits.max))
        strategies[field.name] = st.lists(number, max_size=min(column.length, 3)) if column.length else number
    return st.fixed_dictionaries({}, optional=strategies)


ROW = st.sampled_from(KINDS).flatmap(
    lambda name: st.tuples(st.just(name), st.integers(0, 2**64 - 1), values_of(EVENTS[name]))
)


@given(rows=st.lists(ROW, max_size=12))
def test_parquet_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("parquet") / "events.parquet"
    table = dataclasses.replace(table_of(rows, losses=LOSSES), missing={"dom0": {"be_map": ("pgc", "ro")}})
    table.to_parquet(path)
    back = EventTable.from_parquet(path)
    same(table, back)
    assert list(table) == list(back)


def test_parquet_can_be_queried_by_event_and_field(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "events.parquet"
    table_of([("be_request", 5, {"id": 2**64 - 1}), ("fe_free", 4, {})]).to_parquet(path)
    assert pq.read_table(path, columns=["event", "be_request.id"]).to_pylist() == [
        {"event": "fe_free", "id": None},
        {"event": "be_request", "id": 2**64 - 1},
    ]


def test_other_files_are_no_tables(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "events.parquet"
    with pytest.raises(DecodeError, match="Parquet written by blkproof"):
        EventTable.from_parquet(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DecodeError, match="Parquet written by blkproof"):
        EventTable.from_parquet(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DecodeError, match="Parquet written by blkproof"):
        EventTable.from_parquet(path)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"blkproof": '{"version": 9}'}), path)
    with pytest.raises(CaptureVersion, match="version"):
        EventTable.from_parquet(path)


def test_importing_the_table_is_light():
    heavy = "[m for m in ('pandas', 'numba', 'pyarrow') if m in sys.modules]"
    code = f"import sys; import blkproof.traces.table; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
