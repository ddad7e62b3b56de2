"""Every rule obeys and breaks its own two examples; the register holds what it must."""

import pytest
from blkproof.analysis import history
from blkproof.analysis.check import judge
from blkproof.analysis.errors import RuleDefinitionError
from blkproof.analysis.play import Play
from blkproof.analysis.registry import RULES, rule
from blkproof.analysis.verdict import Outcome
from blkproof.traces.events import EVENTS

EXPECTED = [
    *("R9", "R10", "R12", "R18", "R19", "R20", "R21", "R22", "R29", "R30", "R31", "R32", "R39", "R40", "R41"),
    *("R42", "R43", "R44", "R47", "R52", "R53"),
]


def played(scene):
    play = Play()
    scene(play)
    play.close()
    return judge(history.replay(play.table(), play.facts()))


def test_the_rules_are_all_there():
    assert list(RULES) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_example_that_obeys(name):
    verdict = played(RULES[name].obeys)
    assert (verdict.outcome, verdict.findings, verdict.reasons) == (Outcome.PASS, (), ())
    assert verdict.rules[name].checked > 0
    assert verdict.rules[name].decided == verdict.rules[name].checked


@pytest.mark.parametrize("name", EXPECTED)
def test_example_that_breaks(name):
    verdict = played(RULES[name].breaks)
    assert verdict.outcome is Outcome.FAIL
    finding = next(finding for finding in verdict.findings if finding.rule == name)
    assert finding.text and finding.contradiction and finding.because
    assert all(bound.file for bound in finding.bound)


@pytest.mark.parametrize("name", EXPECTED)
def test_needs_are_needed(name):
    """Without any one event that a rule needs it decides nothing, and the verdict can't be PASS."""
    for missing in RULES[name].needs:
        play = Play()
        RULES[name].obeys(play)
        play.close()
        probes = {
            "dom0": EVENTS.keys() - {missing},
            "guest1": EVENTS.keys() - {missing},
            "xen": EVENTS.keys() - {missing},
        }
        verdict = judge(history.replay(play.table(probes), play.facts()))
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.rules[name].decided == 0
        assert missing in verdict.rules[name].reasons[0]


def test_a_rule_can_not_be_registered_twice_or_need_what_no_probe_gives():
    common = {"level": "MUST", "side": "both", "source": "", "obligation": "", "obeys": None, "breaks": None}
    with pytest.raises(RuleDefinitionError, match="twice"):
        rule(id="R40", needs=set(), **common)
    with pytest.raises(RuleDefinitionError, match="no events"):
        rule(id="R99", needs={"be_nonsense"}, **common)
    with pytest.raises(RuleDefinitionError, match="no id"):
        rule(id="40", needs=set(), **common)
    assert "R99" not in RULES
