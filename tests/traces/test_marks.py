"""A load, read from a recording before it is sealed."""

import pytest
from blkproof.traces.errors import CaptureError
from blkproof.traces.marks import JOB_BEGINS, JOB_ENDS, Load, read_load

from tests.writers.capture_writer import DomainTrace, small_domain, write_capture
from tests.writers.ftrace_writer import Probe

GUEST = "guest1"


def recorded(root, marks):
    guest, back = small_domain(), DomainTrace([Probe("be_other", 1403, [("id", "u64")])])
    for tsc, text in marks:
        guest.mark(tsc, text)
    for tsc in (2100, 2200):
        back.record(tsc, "be_other", {"id": 1})
    return write_capture(root, {"dom0": back, GUEST: guest})


def test_a_load_is_what_lies_between_its_marks(tmp_path):
    root = recorded(tmp_path / "c", [(2000, JOB_BEGINS), (3000, JOB_ENDS)])
    assert read_load(root, GUEST) == Load(ticks=1000, requests=2, ios=30)
    (root / "manifest.json").unlink()
    assert read_load(root, GUEST).ticks == 1000


def test_of_several_jobs_the_first_begins_and_the_last_ends(tmp_path):
    marks = [(2000, JOB_BEGINS), (2500, JOB_BEGINS), (3000, JOB_ENDS), (3500, JOB_ENDS)]
    assert read_load(recorded(tmp_path / "c", marks), GUEST).ticks == 1500


@pytest.mark.parametrize("marks", [[], [(2000, JOB_BEGINS)], [(2000, "another"), (3000, JOB_ENDS)]])
def test_a_load_that_did_not_begin_and_end_is_an_error(tmp_path, marks):
    with pytest.raises(CaptureError, match=r"look at the guest's fio\.log"):
        read_load(recorded(tmp_path / "c", marks), GUEST)
