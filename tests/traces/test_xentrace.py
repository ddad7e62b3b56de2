"""xentrace: what goes in comes out, and no bytes can do worse than an error or a loss."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from blkproof.traces import xentrace
from blkproof.traces.columns import KINDS
from blkproof.traces.errors import DecodeError
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.writers import xentrace_writer as writer

FILE = "xentrace.bin"
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("xentrace") / FILE


def decode(scratch, data):
    scratch.write_bytes(data)
    return xentrace.decode(scratch, FILE)


def rows(stream):
    dom = {name: iter(stream.payload[name]["dom"].tolist()) for name in ("xen_map", "xen_unmap")}
    names = [KINDS[code] for code in stream.kind.tolist()]
    return [
        (name, tsc, cpu, next(dom[name]), offset)
        for name, tsc, cpu, offset in zip(
            names, stream.tsc.tolist(), stream.cpu.tolist(), stream.offset.tolist(), strict=True
        )
    ]


def test_grants_become_events_and_everything_is_counted(scratch):
    data = writer.window(
        3,
        writer.grant_map(100, 1),
        writer.wrap(5),
        writer.record(0x20F007, [1, 2, 3], tsc=105),
        writer.record(0x10F004, [7, 8]),
        writer.grant_unmap(110, 2),
    ) + writer.window(0, writer.grant_map(90, 1))
    stream = decode(scratch, data)
    assert rows(stream) == [
        ("xen_map", 100, 3, 1, 12),
        ("xen_unmap", 110, 3, 2, 12 + 16 + 24 + 24 + 12),
        ("xen_map", 90, 0, 1, 12 + 16 + 24 + 24 + 12 + 16 + 12),
    ]
    assert stream.pid.tolist() == [-1, -1, -1]
    assert stream.losses == ()
    assert stream.counts == {
        "0x0020f007": 1,
        "MEM_PAGE_GRANT_MAP": 2,
        "MEM_PAGE_GRANT_UNMAP": 1,
        "MEM_SET_P2M_ENTRY": 1,
        "TRACE_WRAP_BUFFER": 1,
    }


def test_compiled_code_does_not_remember_the_schema(scratch, monkeypatch):
    """It is kept on disk, and would not see that the schema has more events than when it was compiled."""
    monkeypatch.setattr(xentrace, "_KINDS", xentrace._KINDS[::-1] + 7)
    stream = decode(scratch, writer.window(3, writer.grant_map(100, 1)))
    assert stream.kind.tolist() == [xentrace._KINDS[0]]


def test_lost_records_become_a_loss_from_the_first_lost_one(scratch):
    stream = decode(scratch, writer.window(2, writer.grant_map(5, 1), writer.lost(2**40, 77, 2**33, 1, 3)))
    assert stream.losses == (LossWindow("xen", 2, 2**33, 2**40, 77, FILE, 28),)
    assert stream.counts["LOST_RECORDS"] == 1


def test_an_empty_file_holds_nothing_and_lost_nothing(scratch):
    stream = decode(scratch, b"")
    assert rows(stream) == []
    assert stream.losses == ()


RECORD = st.one_of(
    st.builds(lambda tsc, dom: ("xen_map", tsc, dom), U64, st.integers(0, 0x7FFF)),
    st.builds(lambda tsc, dom: ("xen_unmap", tsc, dom), U64, st.integers(0, 0x7FFF)),
    st.builds(lambda tsc, count, first: ("lost", tsc, count, first), U64, U32, U64),
    st.builds(
        lambda event, extras, tsc: ("other", event, extras, tsc),
        st.integers(0x21000, 0xFFFFFFF).filter(lambda e: e not in (0x10F001, 0x10F002)),
        st.lists(U32, max_size=7),
        st.none() | U64,
    ),
)
ENCODE = {
    "xen_map": writer.grant_map,
    "xen_unmap": writer.grant_unmap,
    "lost": writer.lost,
    "other": writer.record,
}
WINDOWS = st.lists(st.tuples(st.integers(0, 4095), st.lists(RECORD, max_size=8)), max_size=6)


def encode(windows):
    return b"".join(writer.window(cpu, *(ENCODE[r[0]](*r[1:]) for r in records)) for cpu, records in windows)


@given(WINDOWS)
def test_round_trip(scratch, windows):
    stream = decode(scratch, encode(windows))
    flat = [(cpu, record) for cpu, records in windows for record in records]
    assert [row[:4] for row in rows(stream)] == [
        (r[0], r[1], cpu, r[2]) for cpu, r in flat if r[0].startswith("xen_")
    ]
    assert [(loss.cpu, loss.begin_tsc, loss.end_tsc, loss.count) for loss in stream.losses] == [
        (cpu, r[3], r[1], r[2]) for cpu, r in flat if r[0] == "lost"
    ]
    assert sum(stream.counts.values()) == len(flat)


def outcome(scratch):
    """What decoding gives, or the place and words of its error."""
    try:
        stream = xentrace.decode(scratch, FILE)
    except DecodeError as error:
        return error.offset, error.expected
    return rows(stream), stream.losses, stream.counts


@given(WINDOWS.filter(len), st.integers(16, 40), st.data())
def test_pieces_of_any_size_give_the_same(scratch, windows, words, data):
    """Whole, cut off or damaged, no record is lost or seen twice where two pieces meet."""
    raw = bytearray(encode(windows))
    for _ in range(data.draw(st.integers(0, 2))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    whole = outcome(scratch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xentrace, "PIECE_WORDS", words)
        assert outcome(scratch) == whole
        try:
            parts = list(xentrace.batches(scratch, FILE))
        except DecodeError as error:
            assert (error.offset, error.expected) == whole
            return
    assert [row for part in parts for row in rows(part)] == whole[0]
    assert tuple(loss for part in parts for loss in part.losses) == whole[1]
    assert sum((Counter(part.counts) for part in parts), Counter()) == whole[2]


@given(WINDOWS)
@settings(max_examples=25)
def test_every_truncation_gives_a_prefix_and_a_loss(scratch, windows):
    data = encode(windows)
    whole = rows(decode(scratch, data))
    ends, position = {0}, 0
    for cpu, records in windows:
        position += len(encode([(cpu, records)]))
        ends.add(position)
    for length in range(len(data)):
        stream = decode(scratch, data[:length])
        found = rows(stream)
        assert found == whole[: len(found)]
        open_ended = [loss for loss in stream.losses if loss.end_tsc == FOREVER and loss.count is None]
        assert len(open_ended) == (length not in ends)


def test_a_cut_window_is_a_loss_on_its_cpu_since_its_last_record(scratch):
    data = writer.window(4, writer.grant_map(50, 1), writer.grant_map(60, 1))
    assert decode(scratch, data[:-1]).losses == (LossWindow("xen", 4, 50, FOREVER, None, FILE, 28),)
    assert decode(scratch, data[:8]).losses == (LossWindow("xen", EVERY_CPU, 0, FOREVER, None, FILE, 0),)


@given(WINDOWS.filter(len), st.data())
def test_any_corruption_is_an_error_or_decodes(scratch, windows, data):
    raw = bytearray(encode(windows))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        stream = decode(scratch, bytes(raw))
    except DecodeError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(raw)
    else:
        assert all(offset + 16 <= len(raw) for *_, offset in rows(stream))


@given(st.binary(max_size=400))
def test_any_bytes_are_an_error_or_decode(scratch, raw):
    try:
        decode(scratch, raw)
    except DecodeError as error:
        assert error.offset is not None


@pytest.mark.parametrize(
    ("data", "says", "offset"),
    [
        (writer.grant_map(5, 1), "CPU_CHANGE", 0),
        (writer.window(1, writer.wrap()) + b"\0" * 12, "CPU_CHANGE", 28),
        (writer.record(0x1F003, [4096, 0]), "CPU below 4096", 0),
        (writer.record(0x1F003, [0, 6]) + b"\0" * 8, "whole words", 0),
        (writer.window(0, writer.record(0x20F001, [1, 2])[:8]), "ends inside its window", 12),
        (writer.window(0, writer.record(0x10F001, [1])), "well-formed grant", 12),
        (writer.window(0, writer.record(0x10F002, [1, 2], 5)), "well-formed grant", 12),
        (writer.window(0, writer.grant_map(5, 0x8000)), "well-formed grant", 12),
        (writer.window(0, writer.record(0x1F001, [1], 5)), "LOST_RECORDS", 12),
        (writer.window(0, writer.window(1)), "other that windows hold", 12),
    ],
)
def test_broken_bytes_are_named_by_their_place(scratch, data, says, offset):
    with pytest.raises(DecodeError, match=says) as caught:
        decode(scratch, data)
    assert caught.value.offset == offset
    assert f"at byte {offset}" in str(caught.value)


def test_more_ids_than_are_counted_one_by_one_are_still_counted(scratch):
    records = [writer.record(0x100000 + number) for number in range(5000)]
    counts = decode(scratch, writer.window(0, *records) + writer.window(0, *records)).counts
    assert sum(counts.values()) == 10_000
    assert counts["other"] == 2 * (5000 - 4096)


def test_decoding_works_from_a_read_only_place(tmp_path):
    """A package in a system directory, run by a user without a home: compiled anew, but it works."""
    copy = tmp_path / "blkproof" / "traces"
    copy.mkdir(parents=True)
    for source in Path(xentrace.__file__).parent.glob("*.py"):
        (copy / source.name).write_bytes(source.read_bytes())
    trace = tmp_path / FILE
    trace.write_bytes(writer.window(0, writer.grant_map(5, 1)))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import blkproof; blkproof.__path__ = [sys.argv[1] + '/blkproof'];"
        "from pathlib import Path; from blkproof.traces import xentrace;"
        "assert xentrace.__file__.startswith(sys.argv[1]);"
        "print(len(xentrace.decode(Path(sys.argv[2]), 'x').tsc))"
    )
    # Root may write anywhere but for its capabilities; without them it is a user like any other.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    env = {"HOME": str(copy), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    copy.chmod(0o555)
    try:
        done = subprocess.run(
            [*powerless, sys.executable, "-c", code, tmp_path, trace],
            capture_output=True,
            text=True,
            check=False,
            env=env,
            cwd="/",
        )
    finally:
        copy.chmod(0o755)
    assert not (copy / "__pycache__").exists()
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
