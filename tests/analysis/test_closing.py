"""What R60 makes of a ring that is let go of too early."""

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import RING, Play
from blkproof.traces.stream import FOREVER, LossWindow


def found(play):
    verdict = judge(history.replay(play.table(), play.facts()))
    return [finding for finding in verdict.findings if finding.rule == "R60"], verdict.rules["R60"]


def test_a_request_that_is_answered_after_the_ring_is_unmapped():
    play = Play()
    io = play.push(wire.WRITE)
    play.take(io)
    play.close()
    play.respond(io)
    (finding,), _ = found(play)
    assert finding.text == "request id 0 is not answered when the backend lets go of its ring"


def test_a_thread_that_ends_after_the_ring_is_unmapped():
    play = Play()
    play.io()
    play.close(skip={"be_thread_stop"})
    play.rows.append(("be_thread_stop", play.tsc + 1, {"source": "dom0", "pid": 700, "ring": RING}))
    (finding,), _ = found(play)
    assert finding.contradiction == "E < T"


@pytest.mark.parametrize("lost", ["be_thread_stop", "be_response"])
def test_what_was_lost_is_not_held_against_the_backend(lost):
    play = Play()
    play.io()
    play.close()
    play.rows = [row for row in play.rows if row[0] != lost]
    play.losses.append(LossWindow("dom0", -1, 0, FOREVER, 1, "literal", 0, lost))
    findings, result = found(play)
    assert findings == []
    assert (result.checked, result.decided) == (1, 0)


def test_a_ring_that_was_never_closed_is_not_judged():
    play = Play()
    play.io()
    findings, result = found(play)
    assert findings == []
    assert result.reasons == ("1 x the recording ended before the backend had closed the device",)


@pytest.mark.parametrize("first_ends_last", [False, True])
def test_rings_of_one_device_are_let_go_of_one_after_the_other(first_ends_last):
    """The second ring, of which no request is seen, ends and is unmapped after the first."""
    play = Play()
    play.io()
    play.close()
    (unmap,) = (row for row in play.rows if row[0] == "gt_unmap_ring")
    again = (unmap[0], play.tsc + 10, unmap[2])
    thread = {"source": "dom0", "pid": 701, "ring": RING + 4096}
    play.rows += [again, ("be_thread_stop", again[1] - 1, thread)]
    if first_ends_last:  # after both unmaps
        play.rows = [row for row in play.rows if row[0] != "be_thread_stop" or row[2]["ring"] != RING]
        play.rows.append(("be_thread_stop", again[1] + 1, {"source": "dom0", "pid": 700, "ring": RING}))
    findings, _ = found(play)
    assert len(findings) == first_ends_last
