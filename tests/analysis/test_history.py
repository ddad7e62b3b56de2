"""No false alarm: whatever correct drivers do passes, and what was lost makes it undecided at worst."""

import gc

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.explain import explain
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.stream import LossWindow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.histories import lose_kind, lose_stretch, plays

thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def judged(play):
    return judge(history.replay(play.table(), play.facts()))


def test_a_replay_is_not_held_up_by_collecting_garbage(monkeypatch):
    seen = []
    monkeypatch.setattr(history, "_join", lambda *_: seen.append(gc.isenabled()) or ())
    play = Play()
    play.io()
    history.replay(play.table(), play.facts())
    assert (seen, gc.isenabled()) == ([False], True)
    with pytest.raises(AttributeError):
        history.replay(None, play.facts())
    assert gc.isenabled()


def stories(verdict):
    return "\n".join(explain(finding) for finding in verdict.findings)


@thorough
@given(plays())
def test_what_obeys_passes(play):
    verdict = judged(play)
    assert verdict.findings == (), stories(verdict)
    assert verdict.reasons in ((), ("nothing was checked: no request was recorded",)), verdict.reasons
    assert all(result.decided == result.checked for result in verdict.rules.values())


@thorough
@given(plays(), st.data())
def test_lost_stretches_are_never_blamed(play, data):
    for _ in range(data.draw(st.integers(1, 3))):
        lose_stretch(data.draw, play)
    verdict = judged(play)
    assert verdict.outcome is not Outcome.FAIL, stories(verdict)


@thorough
@given(plays(), st.data())
def test_missed_probes_are_never_blamed(play, data):
    lose_kind(data.draw, play)
    verdict = judged(play)
    assert verdict.outcome is not Outcome.FAIL, stories(verdict)


def test_pages_that_could_not_be_mapped_were_not_read():
    """Letting go of them looks like having read them, with what an earlier request left behind."""
    play = Play().set(status=wire.ERROR)
    stale = {"seg": [0, 0] * 20}
    play.io(
        wire.READ, nr=20, be_map_ret={"rc": -5}, be_indirect=stale, skip={"gt_map", "be_add", "be_add_ret"}
    )
    verdict = judged(play)
    assert not {finding.rule for finding in verdict.findings} & {"R30", "R31", "R33"}
    assert verdict.rules["R30"].decided == 0


def test_what_a_cpu_did_before_a_loss_is_not_what_it_does_after():
    """The rest of a request whose beginning was lost does not become part of the one before."""
    play = Play().set(max_indirect=256)
    play.io(wire.WRITE, nr=100)
    play.io(wire.WRITE, nr=100)
    rests = [number for number, row in enumerate(play.rows) if row[0] == "fe_page_more"]
    begin, end = play.rows[rests[0] - 1], play.rows[rests[1]]
    lost = {n for n, row in enumerate(play.rows) if rests[0] <= n < rests[1] and row[2]["source"] == "guest1"}
    play.losses.append(LossWindow("guest1", -1, begin[1], end[1], len(lost), "literal", 0))
    play.rows = [row for number, row in enumerate(play.rows) if number not in lost]
    run = history.replay(play.close().table(), play.facts())
    (ring,) = run.rings
    assert ring.front is None
