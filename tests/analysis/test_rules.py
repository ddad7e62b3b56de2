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
    *("R9", "R10", "R12", "R18", "R19", "R20", "R21", "R22", "R23", "R24", "R29", "R30", "R31", "R32"),
    *("R39", "R40", "R41", "R42", "R43", "R44", "R47", "R52", "R53", "R60"),
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


def without(name, missing, source):
    play = Play()
    RULES[name].obeys(play)
    play.close()
    play.rows = [row for row in play.rows if row[0] != missing or row[2]["source"] not in source]
    probes = {
        who: EVENTS.keys() - ({missing} if who in source else set()) for who in ("dom0", "guest1", "xen")
    }
    return judge(history.replay(play.table(probes), play.facts()))


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_rule_needs_is_needed(name):
    """Without any one event that a rule needs it decides nothing, and the verdict can't be PASS."""
    for missing in RULES[name].needs:
        verdict = without(name, missing, {"dom0", "guest1"})
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.rules[name].decided == 0
        assert f"{name} needs {missing}, but" in verdict.rules[name].reasons[0]


@pytest.mark.parametrize("source", ["dom0", "guest1"])
@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_rule_uses_is_missed(name, source):
    """Without what it uses besides, a rule blames nobody, and says what it had to do without."""
    for missing in RULES[name].also:
        verdict = without(name, missing, {source})
        assert verdict.findings == ()
        if EVENTS[missing].origin in ("either", {"dom0": "backend", "guest1": "frontend"}[source]):
            assert verdict.outcome is Outcome.INCONCLUSIVE
            assert any(f"do without {missing}" in reason for reason in verdict.rules[name].reasons)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_lost_guest_is_no_reason_to_blame(name):
    play = Play()
    RULES[name].obeys(play)
    play.close()
    play.rows = [row for row in play.rows if row[2]["source"] != "guest1"]
    probes = {"dom0": EVENTS.keys(), "xen": EVENTS.keys()}
    verdict = judge(history.replay(play.table(probes), play.facts()))
    assert (verdict.outcome, verdict.findings) == (Outcome.INCONCLUSIVE, ())


def test_a_rule_can_not_be_registered_twice_or_need_what_no_probe_gives():
    common = {"level": "MUST", "side": "both", "source": "", "obligation": "", "obeys": None, "breaks": None}
    with pytest.raises(RuleDefinitionError, match="twice"):
        rule(id="R40", needs=set(), **common)
    with pytest.raises(RuleDefinitionError, match="no events"):
        rule(id="R99", needs={"be_nonsense"}, **common)
    with pytest.raises(RuleDefinitionError, match="no id"):
        rule(id="40", needs=set(), **common)
    assert "R99" not in RULES
