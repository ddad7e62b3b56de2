"""Notifications that were owed, and contents that changed on the way: what R23 and R24 make of it."""

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.stream import FOREVER, LossWindow

TOLD = {"ev_notify"}


def judged(play):
    play.close()
    return judge(history.replay(play.table(), play.facts()))


def answered(play, io, skip=()):
    play.take(io)
    play.map(io)
    play.respond(io, skip)


def test_a_notification_may_come_late():
    play = Play()
    io = play.push(skip=TOLD)
    play.rows.append(("ev_notify", play.tsc + 1, {"source": "guest1", "pid": 1, "irq": 40}))
    play.tsc += 100
    answered(play, io)
    play.complete(io)
    assert judged(play).outcome is Outcome.PASS


def test_of_two_pushes_that_call_for_a_notification_one_is_not_enough():
    play = Play()
    first = play.push(skip=TOLD)
    play.at.req_event = 2  # the backend asks once more, before it took anything
    second = play.push()
    answered(play, first)
    answered(play, second)
    for io in (first, second):
        play.complete(io)
    verdict = judged(play)
    assert [(finding.rule, finding.times) for finding in verdict.findings] == [("R24", 1)]
    assert "request id 0 is pushed, and the backend is not notified" in verdict.findings[0].text


def test_who_was_awake_need_not_be_notified():
    play = Play()
    for _ in range(3):
        io = play.push(skip=TOLD)
        answered(play, io, skip=TOLD)
        play.complete(io)
    assert judged(play).outcome is Outcome.PASS


def test_a_response_that_nobody_was_told_of_and_nobody_took():
    play = Play().set(ended="stall")
    answered(play, play.push(), skip=TOLD)
    play.closed = True
    verdict = judged(play)
    assert [finding.rule for finding in verdict.findings] == ["R24"]
    assert "a response to id 0 is pushed, and the frontend is not notified" in verdict.findings[0].text


@pytest.mark.parametrize("source", ["dom0", "guest1"])
def test_a_notification_may_have_been_lost(source):
    play = Play().set(ended="stall")
    answered(play, play.push(skip=TOLD), skip=TOLD)
    play.closed = True
    play.losses.append(LossWindow(source, -1, 0, FOREVER, 1, "literal", 0, "ev_notify"))
    verdict = judged(play)
    assert {finding.rule for finding in verdict.findings} <= {"R24"}
    assert verdict.rules["R24"].decided < verdict.rules["R24"].checked


@pytest.mark.parametrize("nr", [1, 11, 12, 33, 161, 256])
def test_every_segment_of_a_request_is_compared(nr):
    play = Play()
    io = play.io(wire.WRITE, nr)
    assert judged(play).outcome is Outcome.PASS
    kind, start = ("seg", "fe_push") if nr <= wire.DIRECT_SEGMENTS else ("page", "fe_page")
    event, last = [(row[0], row[2]) for row in play.rows if row[0].startswith(start)][-1]
    last[kind] = [*last[kind][:-1], last[kind][-1] ^ 1 << 40]
    verdict = judge(history.replay(play.table(), play.facts()))
    assert [finding.rule for finding in verdict.findings] == ["R23"], event
    assert str(io.segments[-1].gref) in verdict.findings[0].text


def test_what_a_request_left_in_the_ring_before_is_not_compared():
    """The rest of an entry is whatever an earlier request had there."""
    play = Play()
    play.io(wire.WRITE, 2, fe_push={"seg": [*[(100 + n) | 7 << 40 for n in range(2)], *[1] * 9]})
    assert judged(play).outcome is Outcome.PASS
