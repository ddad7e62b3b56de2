"""Every mutation of a good history is found, by the rule that forbids it, and what is left alone passes."""

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.table import EventTable

from tests.analysis.mutations import MUTATIONS


def recorded(mode):
    offer = int(mode == "kept")
    play = Play().set(front_offer=offer, front_parameter="NY"[offer])
    for nr in (1, 2, 20, 8, 4, 12, 3, 2, 6):
        for op in (wire.WRITE, wire.READ):
            play.io(op, nr)
            play.burst(3)
    play.io(wire.FLUSH, 0)
    return play.close()


def judged(play, rows):
    table = EventTable.from_events(sorted(rows, key=lambda row: row[1]))
    return judge(history.replay(table, play.facts()))


@pytest.mark.parametrize("mode", ["kept", "ended"])
def test_unchanged(mode):
    play = recorded(mode)
    verdict = judged(play, play.rows)
    assert (verdict.outcome, verdict.reasons) == (Outcome.PASS, ())


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_found(mutation):
    play = recorded(mutation.mode)
    mutation.change(play.rows)
    verdict = judged(play, play.rows)
    assert verdict.outcome is Outcome.FAIL
    assert mutation.rule in {finding.rule for finding in verdict.findings}
