"""ftrace: raw pages to columns, by what the format files say."""

import shutil
from collections import Counter
from contextlib import suppress

import pytest
from blkproof.traces import ftrace, ftrace_pages
from blkproof.traces.columns import KINDS
from blkproof.traces.errors import ClockError, DecodeError
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.writers.capture_writer import DomainTrace, small_domain, unsealed
from tests.writers.ftrace_writer import Probe, Ring
from tests.writers.ftrace_writer import stats as stats_text

CPU0 = "dom0/trace/cpu0.raw"
HEAD = [("ring", "u64"), ("id", "u64"), ("op", "u8")]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("ftrace") / "run"


def decode(scratch, trace, changes=None):
    """Decode ``trace`` as dom0's, with the bytes of its first CPU changed by ``changes``."""
    shutil.rmtree(scratch, ignore_errors=True)
    trace.write(scratch / "dom0/trace")
    if changes is not None:
        raw = scratch / CPU0
        raw.write_bytes(changes(raw.read_bytes()))
    return ftrace.decode(unsealed(scratch), "dom0")


@pytest.mark.parametrize("lengths", [True, False])
def test_scalars_arrays_parts_and_strings_arrive_as_the_schema_says(scratch, lengths):
    singles = [(f"seg{i}", "u64") for i in range(64)]
    arrays = [(f"seg{i}", "u64[64]") for i in range(4)]
    probes = [
        Probe("be_indirect", 1500, [*HEAD, ("n", "s32"), *singles, ("nr", "s32")], lengths=lengths),
        Probe("be_indirect_more", 1503, [("id", "u64"), ("nr", "s32"), *arrays], lengths=lengths),
        Probe("xs_write", 1501, [("xbt", "u32"), ("dir", "string"), ("node", "string"), ("value", "string")]),
        Probe("be_map_ret", 1502, [("rc", "s32")]),
    ]
    trace = DomainTrace(probes)
    segs = [2**64 - 1 - i for i in range(256)]
    values = {f"seg{i}": seg for i, seg in enumerate(segs[:64])} | {"ring": 2**63, "id": 7, "op": 6}
    trace.record(5, "be_indirect", values | {"n": 1, "nr": -1}, pid=70000)
    values = {f"seg{i}": segs[64 * i : 64 * i + 64] for i in range(4)}
    trace.record(5, "be_indirect_more", values | {"id": 7, "nr": 200}, pid=70000)
    trace.record(6, "xs_write", {"xbt": 1, "dir": "device/vbd", "node": "state", "value": b"a\x1b\\\n\0junk"})
    trace.record(7, "be_map_ret", {"rc": -28})
    domain = decode(scratch, trace)
    (stream,) = domain.streams
    assert domain.missing == {}
    data = stream.payload["be_indirect"]
    assert data["seg"].tolist() == [segs[:64]]
    assert stream.payload["be_indirect_more"]["seg"].tolist() == [segs]
    assert (data["ring"].tolist(), data["op"].tolist(), data["nr"].tolist()) == ([2**63], [6], [-1])
    assert [str(column.dtype) for column in (data["op"], data["nr"], data["ring"])] == [
        "uint16",
        "int32",
        "uint64",
    ]
    text = stream.payload["xs_write"]
    assert text["dir"].tolist() == ["device/vbd"]
    assert text["value"].tolist() == ["a\\x1b\\x5c"], "escaped, and cut at the NUL"
    assert stream.payload["be_map_ret"]["rc"].tolist() == [-28]
    assert stream.pid.tolist() == [70000, 70000, 1, 1]
    assert stream.tsc.tolist() == [5, 5, 6, 7]


def test_what_a_probe_could_not_add_is_added(scratch):
    args = [("pgnt", "u64"), ("gref", "u32"), ("handle", "u32"), ("pgnt_plus", "s64")]
    trace = DomainTrace([Probe("be_get_ret", 1500, args)])
    trace.record(5, "be_get_ret", {"pgnt": 2**63, "gref": 8, "handle": 2, "pgnt_plus": -32})
    trace.record(6, "be_get_ret", {"pgnt": 0, "gref": 0, "handle": 0, "pgnt_plus": 0})
    trace.record(7, "be_get_ret", {"pgnt": 16, "gref": 0, "handle": 0, "pgnt_plus": 8})
    domain = decode(scratch, trace)
    assert domain.missing == {}
    assert domain.streams[0].payload["be_get_ret"]["pgnt"].tolist() == [2**63 - 32, 0, 24]
    assert domain.streams[0].payload["be_get_ret"]["gref"].tolist() == [8, 0, 0]


@pytest.mark.parametrize("kind", ["u32", "u64[1]", "string"])
def test_nothing_else_is_added(scratch, kind):
    trace = DomainTrace([Probe("fe_irq", 1500, [("rinfo", "u64"), ("rinfo_plus", kind)])])
    trace.record(5, "fe_irq", {"rinfo": 5, "rinfo_plus": {"u32": 1, "u64[1]": [1], "string": "1"}[kind]})
    assert decode(scratch, trace).streams[0].payload["fe_irq"]["rinfo"].tolist() == [5]


def test_offsets_say_where_the_record_starts(scratch):
    trace = small_domain(1000)
    (stream,) = decode(scratch, trace).streams
    raw = (scratch / CPU0).read_bytes()
    numbers = [int.from_bytes(raw[o : o + 2], "little") for o in stream.offset.tolist()]
    assert numbers == [5, 1402, 1401]


def test_what_is_armed_and_what_a_probe_lacks_is_told(scratch):
    probes = [
        Probe("gt_put_free", 1500, [("ref", "u32")]),
        Probe("gt_grant", 1501, [("ref", "u32"), ("dom", "u16"), ("frame", "string"), ("ro", "u8[2]")]),
        Probe(
            "be_indirect",
            1502,
            [("ring", "u64"), ("id", "u64"), ("op", "u8"), ("nr", "s32"), ("seg", "u64[8]")],
        ),
        Probe("not_ours", 1503, [("x", "u32")]),
        Probe("block_rq_issue", 1504, [("x", "u32")], group="block"),
    ]
    trace = DomainTrace(probes)
    trace.record(4, "gt_grant", {"ref": 3, "dom": 1, "frame": "x", "ro": [1, 2]})
    trace.record(5, "not_ours", {"x": 1})
    trace.record(6, "block_rq_issue", {"x": 1})
    trace.rings[0].write(7, Probe("gone", 1999, []).encode({}))
    domain = decode(scratch, trace)
    assert domain.probes == {"gt_put_free", "gt_grant", "be_indirect", "mark"}
    assert domain.missing == {"gt_grant": ("frame", "ro"), "be_indirect": ("n", "seg")}
    (stream,) = domain.streams
    assert [KINDS[code] for code in stream.kind] == ["gt_grant"]
    assert {name: column.tolist() for name, column in stream.payload["gt_grant"].items()} == {
        "ref": [3],
        "dom": [1],
        "frame": [0],
        "ro": [0],
    }
    assert stream.counts == {"gt_grant": 1, "not_ours": 1, "block/block_rq_issue": 1, "event 1999": 1}


FE_FREE = Probe("fe_free", 1402, [("rinfo", "u32")])
PATH = Probe("be_fe_changed", 1403, [("node", "string"), ("state", "u32")])
STEP = st.one_of(
    st.integers(0, 200),
    st.integers(2**27 - 2, 2**27 + 2),
    st.integers(0, 2**40),
)
WRITE = st.tuples(
    STEP,
    st.one_of(
        st.tuples(st.just("fe_free"), st.integers(0, 2**32 - 1)),
        st.tuples(st.just("be_fe_changed"), st.text("abc/", max_size=300)),
        st.tuples(st.just("discard"), st.booleans()),
        st.tuples(st.just("pad"), st.none()),
        st.tuples(st.just("lose"), st.none() | st.integers(1, 2**40)),
    ),
    st.booleans(),
)


@given(st.integers(0, 2**58), st.lists(WRITE, max_size=60))
@settings(max_examples=150)
def test_round_trip_over_pages_extends_discards_padding_and_losses(scratch, tsc, writes):
    ring, wrote, lost = Ring(), [], []
    last = None
    for step, (what, value), absolute in writes:
        tsc += step
        if what == "fe_free":
            ring.write(tsc, FE_FREE.encode({"rinfo": value}), absolute=absolute)
            wrote.append((what, tsc, value))
        elif what == "be_fe_changed":
            ring.write(tsc, PATH.encode({"node": value, "state": 3}), absolute=absolute)
            wrote.append((what, tsc, value))
        elif what == "discard":
            ring.write(tsc, FE_FREE.encode({"rinfo": 1}), discard=True)
            tsc = ring.now
        elif what == "pad" and ring.first is not None:
            ring.pad()
        elif what == "lose" and (last is None or last != len(wrote)):
            last = len(wrote)
            ring.lose(value)
            lost.append(value)
            ring.write(tsc + 1, FE_FREE.encode({"rinfo": 7}))
            wrote.append(("fe_free", tsc + 1, 7))
            tsc += 1
    domain = decode(scratch, DomainTrace([FE_FREE, PATH], {0: ring}))
    (stream,) = domain.streams
    values = {
        name: iter(stream.payload[name][key].tolist())
        for name, key in (("fe_free", "rinfo"), ("be_fe_changed", "node"))
        if name in stream.payload
    }
    found = [
        (KINDS[code], time, next(values[KINDS[code]]))
        for code, time in zip(stream.kind.tolist(), stream.tsc.tolist(), strict=True)
    ]
    assert found == wrote
    assert [loss.count for loss in stream.losses] == lost
    assert all(loss.begin_tsc <= loss.end_tsc <= tsc for loss in stream.losses)


def test_an_absolute_time_keeps_the_high_bits_and_may_overflow(scratch):
    ring, top = Ring(), 3 << 59
    ring.write(top | (1 << 59) - 5, FE_FREE.encode({"rinfo": 1}))
    ring.write(top | (1 << 59) - 2, FE_FREE.encode({"rinfo": 2}), absolute=True)
    ring.write((top | (1 << 59) - 2) + 9, FE_FREE.encode({"rinfo": 3}), absolute=True)
    (stream,) = decode(scratch, DomainTrace([FE_FREE], {0: ring})).streams
    assert stream.tsc.tolist() == [top | (1 << 59) - 5, top | (1 << 59) - 2, (top | (1 << 59) - 2) + 9]


def test_missed_events_lie_between_two_pages(scratch):
    ring = Ring()
    ring.write(100, FE_FREE.encode({"rinfo": 1}))
    ring.lose(12)
    ring.write(900, FE_FREE.encode({"rinfo": 2}))
    ring.lose()
    ring.write(950, FE_FREE.encode({"rinfo": 3}))
    (stream,) = decode(scratch, DomainTrace([FE_FREE], {0: ring})).streams
    assert stream.losses == (
        LossWindow("dom0", 0, 100, 900, 12, CPU0, 4096),
        LossWindow("dom0", 0, 900, 950, None, CPU0, 8192),
    )


@pytest.mark.parametrize(
    ("stats", "unseen"),
    [
        ({"overrun": 3}, 0),
        ({"overrun": 7}, 4),
        ({"dropped": 2}, 2),
        ({"overrun": 4, "dropped": 2}, 3),
        ({"entries": 2}, 0),
        ({"read": 2}, 0),
        ({"entries": 2, "read": 3}, 3),
    ],
)
def test_losses_that_no_page_tells_of_come_from_stats(scratch, stats, unseen):
    ring = Ring()
    ring.write(100, FE_FREE.encode({"rinfo": 1}))
    ring.lose(3)
    ring.write(101, FE_FREE.encode({"rinfo": 1}))
    (stream,) = decode(scratch, DomainTrace([FE_FREE], {0: ring}, stats={0: stats_text(**stats)})).streams
    expected = (LossWindow("dom0", 0, 0, FOREVER, unseen, "dom0/trace/stats/cpu0", 0),) if unseen else ()
    assert stream.losses[1:] == expected


def test_a_cpu_whose_pages_are_not_in_the_capture_is_a_loss(scratch):
    decode(scratch, small_domain())
    (scratch / "dom0/trace/stats/cpu1").write_text(stats_text(entries=5, read=2))
    (scratch / "dom0/trace/stats/cpu2").write_text(stats_text())
    assert ftrace.decode(unsealed(scratch), "dom0").losses == (
        LossWindow("dom0", 1, 0, FOREVER, 7, "dom0/trace/stats/cpu1", 0),
    )


def test_missed_hits_of_a_probe_are_a_loss_of_that_event_at_any_time(scratch):
    trace = small_domain()
    trace.profile = "  fe_free      3    2\n  gt_try_end   4   0\n  blkproof/gt_put_free 0 1\n  other 1 1\n"
    assert decode(scratch, trace).losses == tuple(
        LossWindow("dom0", EVERY_CPU, 0, FOREVER, count, "dom0/trace/kprobe_profile", 0, event)
        for event, count in (("fe_free", 2), ("gt_put_free", 1))
    )


def test_hits_missed_before_the_trace_was_on_are_no_loss(scratch):
    trace = small_domain()
    trace.profile = "  fe_free   3   2\n  gt_put_free   9   5\n"
    decode(scratch, trace)
    (scratch / "dom0/trace/kprobe_profile.armed").write_text("  fe_free  1  2\n  gt_put_free  1  4\n")
    (loss,) = ftrace.decode(unsealed(scratch), "dom0").losses
    assert (loss.event, loss.count) == ("gt_put_free", 1)


@pytest.mark.parametrize("clock", ["[local] global x86-tsc\n", "local x86-tsc\n", ""])
def test_another_clock_is_refused(scratch, clock):
    trace = small_domain()
    trace.clock = clock
    with pytest.raises(ClockError, match="dom0/trace/trace_clock: expected the clock x86-tsc"):
        decode(scratch, trace)


def full_ring(pages=3):
    ring = Ring()
    tsc = 0
    while len(ring.pages) < pages:
        tsc += 10
        ring.write(tsc, PATH.encode({"node": "backend/vbd/1/51712" * (tsc % 9), "state": tsc % 7}))
    return DomainTrace([FE_FREE, PATH], {0: ring})


def rows(stream):
    return list(
        zip(stream.tsc.tolist(), stream.payload.get("be_fe_changed", {}).get("node", []), strict=False)
    )


def test_every_truncation_gives_whole_pages_and_a_loss(scratch):
    (whole,) = decode(scratch, full_ring()).streams
    size = (scratch / CPU0).stat().st_size
    for length in [*range(0, size, 257), *range(4090, 4110), size - 1]:
        (stream,) = decode(scratch, full_ring(), changes=lambda data, length=length: data[:length]).streams
        found = rows(stream)
        assert found == rows(whole)[: len(found)]
        end = length // 4096 * 4096
        last = max([0, *stream.tsc.tolist()])
        cut = (LossWindow("dom0", 0, last, FOREVER, None, CPU0, end),) if length % 4096 else ()
        assert stream.losses == cut


def outcome(scratch):
    """What decoding gives, or None for an error: of two, another one may be met first."""
    try:
        (stream,) = ftrace.decode(unsealed(scratch), "dom0").streams
    except DecodeError:
        return None
    return rows(stream), stream.offset.tolist(), stream.losses, stream.counts


@given(
    st.lists(st.tuples(st.integers(0, 2**14), st.integers(0, 255)), max_size=2),
    st.integers(0, 5 * 4096),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_pages_read_any_number_at_a_time_give_the_same(scratch, changes, length, at_once, pages):
    """Whole, cut off or damaged, no record or loss is lost or seen twice where two parts meet."""
    trace = full_ring()
    trace.rings[0].lose(7)
    trace.rings[0].write(10**6, PATH.encode({"node": "x", "state": 1}))
    trace.stats[0] = stats_text(overrun=9)

    def changed(data):
        raw = bytearray(data)
        for place, value in changes:
            raw[place % len(raw)] = value
        return bytes(raw[:length])

    with suppress(DecodeError):
        decode(scratch, trace, changes=changed)
    whole = outcome(scratch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ftrace_pages, "PAGES_AT_ONCE", at_once)
        assert outcome(scratch) == whole
        try:
            parts = list(ftrace.batches(unsealed(scratch), "dom0", pages))
        except DecodeError:
            assert whole is None
            return
    assert [row for part in parts for row in rows(part)] == whole[0]
    assert [offset for part in parts for offset in part.offset.tolist()] == whole[1]
    assert tuple(loss for part in parts for loss in part.losses) == whole[2]
    assert sum((Counter(part.counts) for part in parts), Counter()) == whole[3]


@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=5))
@settings(max_examples=150)
def test_any_corruption_is_an_error_or_decodes(scratch, changes):
    def corrupt(data):
        raw = bytearray(data)
        for place, value in changes:
            raw[place % len(raw)] = value
        return bytes(raw)

    try:
        (stream,) = decode(scratch, full_ring(1), changes=corrupt).streams
    except DecodeError as error:
        assert error.offset is not None
    else:
        assert all(20 <= offset < 4096 * 4 for offset in stream.offset.tolist())


@given(st.binary(max_size=6000))
def test_any_bytes_are_an_error_or_decode(scratch, raw):
    try:
        decode(scratch, small_domain(), changes=lambda _: raw)
    except DecodeError as error:
        assert error.offset is not None


def patch(place, word):
    return lambda data: data[:place] + word.to_bytes(4, "little") + data[place + 4 :]


@pytest.mark.parametrize(
    ("changes", "says", "offset"),
    [
        (patch(8, 4081), "count of bytes", 0),
        (patch(8, 4084), "count of bytes", 0),
        (patch(8, 4080 | 1 << 30 | 1 << 31), "count of bytes", 0),
        (patch(8, 42), "count of bytes", 0),
        (patch(12, 1), "count of bytes", 0),
        (patch(8, 8), "ends inside its page", 16),
        (patch(16, 1), "type and pid", 16),
        (patch(20, 5 | 9 << 16), None, None),
        (patch(20, 1401), "as its format file says", 20),
    ],
)
def test_broken_pages_are_named_by_their_place(scratch, changes, says, offset):
    trace = DomainTrace([FE_FREE, Probe("gt_try_end", 1401, [("x", "u64"), ("ref", "u32")])])
    trace.rings[0] = Ring()
    trace.rings[0].write(5, FE_FREE.encode({"rinfo": 1}))
    if says is None:
        assert decode(scratch, trace, changes=changes).streams[0].counts == {"mark": 1}
        return
    with pytest.raises(DecodeError, match=says) as caught:
        decode(scratch, trace, changes=changes)
    assert caught.value.offset == offset


def test_a_string_beyond_its_record_is_an_error(scratch):
    trace = DomainTrace([PATH])
    trace.record(5, "be_fe_changed", {"node": "abc", "state": 1})
    with pytest.raises(DecodeError, match="inside its record"):
        decode(scratch, trace, changes=patch(20 + 16, 200 << 16 | 24))


def test_a_value_that_does_not_fit_the_schema_is_an_error(scratch):
    trace = DomainTrace([Probe("gt_put_free", 1500, [("ref", "u64")])])
    trace.record(5, "gt_put_free", {"ref": 2**32 - 1})
    assert decode(scratch, trace).streams[0].payload["gt_put_free"]["ref"].tolist() == [2**32 - 1]
    trace.record(6, "gt_put_free", {"ref": 2**32})
    with pytest.raises(DecodeError, match=r"gt_put_free\.ref that fit u32"):
        decode(scratch, trace)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("header_page", "nonsense\n", "describes a field"),
        ("header_page", "\tfield: u64 timestamp;\toffset:0;\tsize:4;\tsigned:0;\n", "64-bit kernel"),
        ("formats/blkproof/fe_free", "name: fe_free\n", "tracefs format file"),
        (
            "formats/blkproof/fe_free",
            "name: x\nID: 3\n\tfield:int a;\toffset:0;\tsize:4;\tsigned:1;\n",
            "common_type",
        ),
        ("formats/blkproof/fe_free", "ID: 3\n\tfield:int;\n", "describes a field"),
    ],
)
def test_broken_texts_of_tracefs_are_named(scratch, file, text, says):
    decode(scratch, small_domain())
    (scratch / "dom0/trace" / file).write_text(text)
    with pytest.raises(DecodeError, match=says):
        ftrace.decode(unsealed(scratch), "dom0")


def test_what_the_kernel_prints_is_an_event_of_the_schema(scratch):
    console = Probe("console", 77, [("msg", "string")], group="printk")
    trace = DomainTrace([console])
    trace.record(5, "console", {"msg": "xen:grant_table: g.e. 0x123 still pending\n"}, pid=9)
    domain = decode(scratch, trace)
    (stream,) = domain.streams
    assert stream.payload["message"]["text"].tolist() == ["xen:grant_table: g.e. 0x123 still pending"]
    assert stream.counts == {"message": 1}
    assert domain.probes == {"mark", "message"}
