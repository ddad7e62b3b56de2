"""One clock for all, or no evidence."""

from pathlib import Path

import pytest
from blkproof.traces.clock import check_clock
from blkproof.traces.errors import ClockError
from blkproof.traces.literal import streams
from blkproof.traces.stream import LossWindow

PATH = Path("run")
GOOD = [
    ("mark", 100, {"text": "blkproof:armed"}),
    ("fe_queue", 110, {}),
    ("be_request", 120, {"dom": 1}),
    ("be_response", 130, {"dom": 1}),
    ("fe_response", 140, {}),
    ("xen_map", 125, {"dom": 1}),
    ("gt_map", 126, {"n": 1}),
    ("mark", 150, {"source": "guest1", "text": "blkproof:disarm"}),
]


def shifted(ticks, source):
    rows = streams(GOOD)
    for stream in rows:
        if stream.source == source:
            stream.tsc = (stream.tsc.astype("int64") + ticks).astype("uint64")
    return rows


@pytest.mark.parametrize("ticks", [-10, 0, 10])
def test_a_shift_smaller_than_the_way_of_a_request_can_not_be_seen(ticks):
    check_clock(shifted(ticks, "guest1"), {"guest1": 1}, PATH)


@pytest.mark.parametrize(
    ("ticks", "says"),
    [
        (11, "taken 1 ticks before it was queued"),
        (-11, "seen 1 ticks before it was written"),
        (-60, "records of dom0 at 100 to 130 and of guest1 at 50 to 90"),
        (100, "records of dom0 at 100 to 130 and of guest1 at 210 to 250"),
    ],
)
def test_a_guest_with_another_clock_is_refused(ticks, says):
    with pytest.raises(ClockError, match=says):
        check_clock(shifted(ticks, "guest1"), {"guest1": 1}, PATH)


def test_xen_with_another_clock_is_refused():
    with pytest.raises(ClockError, match="of xen at 90"):
        check_clock(shifted(-35, "xen"), {"guest1": 1}, PATH)


def test_where_nothing_was_mapped_xen_may_have_recorded_only_before():
    rows = [row for row in GOOD if row[0] not in {"gt_map", "xen_map"}]
    check_clock(streams([*rows, ("xen_map", 20, {"dom": 1})]), {"guest1": 1}, PATH)


def test_only_requests_of_that_guest_count():
    check_clock(shifted(11, "guest1"), {"guest1": 2}, PATH)


def test_after_a_loss_the_first_of_a_kind_may_be_gone():
    rows = shifted(11, "guest1")
    rows[0].losses = (LossWindow("guest1", 0, 0, 120, 3, "x", 0),)
    check_clock(rows, {"guest1": 1}, PATH)


def test_without_events_there_is_nothing_to_compare():
    check_clock(streams([]), {"guest1": 1}, PATH)
