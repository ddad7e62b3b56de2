"""Every rule obeys and breaks its own two examples; the register holds what it must."""

import pytest
from blkproof.analysis import history
from blkproof.analysis.check import judge
from blkproof.analysis.errors import RuleDefinitionError
from blkproof.analysis.play import Play
from blkproof.analysis.registry import RULES, legal, rule, undecidable
from blkproof.analysis.verdict import FAILING, LEGAL, Outcome
from blkproof.traces.events import EVENTS

ALL = [f"R{number}" for number in range(1, 67)]
JUDGED = [name for name, rule in RULES.items() if rule.check]
BREAKABLE = [name for name, rule in RULES.items() if rule.breaks]


def played(scene):
    play = Play()
    scene(play)
    play.close()
    return judge(history.replay(play.table(), play.facts()))


def test_the_rules_are_all_there():
    assert list(RULES) == ALL


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_every_rule_is_judged_or_says_why_not(rule):
    assert rule.obligation and rule.source
    if rule.undecidable:
        assert (rule.check, rule.obeys, rule.breaks) == (None, None, None)
    else:
        assert rule.check and rule.obeys
        assert (rule.breaks is None) == (rule.level == LEGAL)


@pytest.mark.parametrize("name", JUDGED)
def test_example_that_obeys(name):
    verdict = played(RULES[name].obeys)
    assert (verdict.outcome, verdict.findings, verdict.reasons) == (Outcome.PASS, (), ())
    assert verdict.rules[name].checked > 0
    assert verdict.rules[name].decided == verdict.rules[name].checked


@pytest.mark.parametrize("name", BREAKABLE)
def test_example_that_breaks(name):
    verdict = played(RULES[name].breaks)
    finding = next(finding for finding in verdict.findings if finding.rule == name)
    assert (verdict.outcome is Outcome.FAIL) == any(found.level in FAILING for found in verdict.findings)
    assert (finding.level in FAILING) == (RULES[name].level in FAILING) or name == "R9"
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


@pytest.mark.parametrize("name", JUDGED)
def test_what_a_rule_needs_is_needed(name):
    """Without any one event that a rule needs it decides nothing, and the verdict can't be PASS."""
    for missing in RULES[name].needs:
        verdict = without(name, missing, {"dom0", "guest1"})
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.rules[name].decided == 0
        assert f"{name} needs {missing}, but" in verdict.rules[name].reasons[0]


@pytest.mark.parametrize("source", ["dom0", "guest1"])
@pytest.mark.parametrize("name", JUDGED)
def test_what_a_rule_uses_is_missed(name, source):
    """Without what it uses besides, a rule blames nobody, and says what it had to do without."""
    for missing in RULES[name].also:
        verdict = without(name, missing, {source})
        assert verdict.findings == ()
        if EVENTS[missing].origin in ("either", {"dom0": "backend", "guest1": "frontend"}[source]):
            assert verdict.outcome is Outcome.INCONCLUSIVE
            assert any(f"do without {missing}" in reason for reason in verdict.rules[name].reasons)


@pytest.mark.parametrize("name", JUDGED)
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
        rule(id="R40", needs=set(), **common)(None)
    with pytest.raises(RuleDefinitionError, match="no events of"):
        rule(id="R99", needs={"be_nonsense"}, **common)(None)
    with pytest.raises(RuleDefinitionError, match="no id"):
        rule(id="40", needs=set(), **common)(None)
    with pytest.raises(RuleDefinitionError, match="no events of"):
        legal(id="R99", side="both", source="", obligation="", needs={"be_nonsense"}, obeys=None)(None)
    with pytest.raises(RuleDefinitionError, match="twice"):
        undecidable(id="R40", level="MUST", side="both", source="", obligation="", reason="")
    assert "R99" not in RULES
