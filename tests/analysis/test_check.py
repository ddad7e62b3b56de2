"""Three values: what makes a verdict PASS, INCONCLUSIVE or FAIL, and with which reason."""

import json
from dataclasses import replace

import pytest
from blkproof.analysis import check, history, wire
from blkproof.analysis.facts import Facts
from blkproof.analysis.play import Play
from blkproof.analysis.registry import RULES
from blkproof.analysis.verdict import Outcome
from blkproof.traces.capture import Capture
from blkproof.traces.events import EVENTS
from blkproof.traces.fio import FioResult
from blkproof.traces.stream import FOREVER, LossWindow

from tests.writers.capture_writer import write_capture


def played(close=True):
    play = Play()
    play.io(wire.WRITE, 3)
    play.io(wire.READ, 20)
    return play.close() if close else play


def judged(play, **facts):
    return check.judge(history.replay(play.table(), replace(play.facts(), **facts)))


def test_pass():
    verdict = judged(played())
    assert (verdict.outcome, verdict.reasons, verdict.requests) == (Outcome.PASS, (), 2)


def test_nothing_recorded_is_no_pass():
    verdict = judged(Play())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0] == "nothing was checked: no request was recorded"


def test_lost_records_are_no_pass_even_when_all_that_is_left_obeys():
    play = played()
    play.losses.append(LossWindow("dom0", 0, 0, 500, 7, "dom0/trace/cpu0.raw", 4096))
    play.rows.insert(0, ("mark", 100, {"source": "dom0", "text": "blkproof:armed"}))
    verdict = judged(play)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "dom0 lost 7 records (dom0/trace/cpu0.raw @0x1000)" in verdict.rules["R21"].reasons


def test_an_event_that_could_not_be_probed_is_named_with_the_reason():
    play = played()
    table = play.table()
    probes = {**table.probes, "dom0": table.probes["dom0"] - {"be_put"}}
    why = "put_persistent_gnt() was inlined and its parameter persistent_gnt was optimised away"
    run = history.replay(replace(table, probes=probes), replace(play.facts(), unseen={"be_put": why}))
    verdict = check.judge(run)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    blind = [id_ for id_, rule in RULES.items() if "be_put" in rule.needs]
    assert blind
    for id_ in blind:
        assert verdict.rules[id_].reasons == (f"{id_} needs be_put, but dom0 had no probe for it ({why})",)
        assert verdict.rules[id_].decided == 0
    assert any(result.decided for result in verdict.rules.values())


@pytest.mark.parametrize("missing", [None, [], "be_put", 3])
def test_a_manifest_with_nonsense_in_place_of_reasons_is_no_crash(missing, tmp_path):
    write_capture(tmp_path / "capture", run={"missing": missing})
    assert Facts.of(Capture.open(tmp_path / "capture")).unseen == {}


def test_losses_outside_the_recording_don_t_count():
    play = played()
    play.losses.append(LossWindow("dom0", 0, play.tsc + 1, FOREVER, 7, "dom0/trace/cpu0.raw", 4096))
    assert judged(play).outcome is Outcome.PASS


def test_a_rule_that_crashes_decides_nothing(monkeypatch):
    def crash(_run, judge):
        judge.holds(3)
        raise ZeroDivisionError("by zero")

    crashed = replace(RULES["R21"], check=crash)
    monkeypatch.setattr(check, "RULES", {**RULES, "R21": crashed})
    verdict = judged(played())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    result = verdict.rules["R21"]
    assert (result.checked, result.decided) == (3, 0)
    assert result.reasons == ("R21 itself failed: ZeroDivisionError: by zero",)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("persistent", "off", "asked for persistent=off, but on device 51712 it was on"),
        ("indirect", "off", "asked for indirect=off, but on device 51712 it was on"),
    ],
)
def test_settings_that_were_not_in_force(setting, value, reason):
    assert judged(played(), settings={setting: "on"}).outcome is Outcome.PASS
    verdict = judged(played(), settings={setting: value})
    assert (verdict.outcome, verdict.reasons) == (Outcome.INCONCLUSIVE, (reason,))


@pytest.mark.parametrize(("asked", "offers"), [("backend-only", (0, 1)), ("frontend-only", (1, 0))])
def test_one_sided_settings_are_in_force_when_only_that_side_offers(asked, offers):
    play = Play().set(front_offer=offers[0], back_offer=offers[1])
    play.set(front_parameter="NY"[offers[0]], back_parameter="NY"[offers[1]])
    play.io(wire.WRITE)
    play.close()
    assert judged(play, settings={"persistent": asked}).outcome is Outcome.PASS
    other = {"backend-only": "frontend-only", "frontend-only": "backend-only"}[asked]
    assert judged(play, settings={"persistent": other}).outcome is Outcome.INCONCLUSIVE
    assert judged(play, settings={"persistent": "on"}).outcome is Outcome.INCONCLUSIVE


def test_a_stall_with_a_request_taken_and_never_answered_is_a_finding():
    play = Play()
    play.io(wire.WRITE)
    io = play.push(wire.READ)
    play.take(io)
    play.map(io)
    verdict = judged(play, ended="stall")
    assert verdict.outcome is Outcome.FAIL
    assert [finding.rule for finding in verdict.findings] == ["R21"]
    assert judged(play, ended="dom0-panic").outcome is Outcome.INCONCLUSIVE


def test_a_stall_with_a_request_that_was_not_taken_is_no_finding():
    play = Play()
    play.io(wire.WRITE)
    play.push(wire.READ)
    verdict = judged(play, ended="stall")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the run ended with 'stall', 1 requests were outstanding" in verdict.reasons


@pytest.mark.parametrize(
    ("errno", "why", "outcome"),
    [
        (84, "data came back other", Outcome.FAIL),
        (5, "Input/output error", Outcome.INCONCLUSIVE),
    ],
)
def test_a_load_that_failed_is_no_pass(errno, why, outcome):
    fio = FioResult(1, 1, 1, 1, 1.0, 1.0, errno)
    verdict = judged(played(), fio=fio)
    assert verdict.outcome is outcome
    assert [finding.rule for finding in verdict.findings] == (["R58"] if errno == 84 else [])
    assert why in verdict.reasons[0]
    assert judged(played(), fio=replace(fio, error=0)).outcome is Outcome.PASS


def test_missing_evidence_is_told():
    verdict = judged(played(), absent=("gnttab.txt: not there",))
    assert (verdict.outcome, verdict.reasons) == (Outcome.INCONCLUSIVE, ("gnttab.txt: not there",))


def test_findings_of_one_kind_are_counted_and_the_first_is_shown():
    play = Play()
    for _ in range(5):
        play.io(wire.WRITE, be_response={"status": 9})
    findings = [finding for finding in judged(play.close()).findings if finding.rule == "R22"]
    assert [finding.times for finding in findings] == [5]


def test_json_is_plain_and_the_same_each_time():
    one, two = (json.dumps(judged(played()).to_json(), sort_keys=True) for _ in range(2))
    assert one == two
    data = json.loads(one)
    assert data["outcome"] == "pass"
    assert data["rules"]["R21"] == {"checked": 2, "decided": 2, "reasons": []}
    assert data["metrics"]["segments"] == {"3": 1, "20": 1}


@pytest.mark.parametrize(
    ("setting", "good", "bad"),
    [
        ("max_persistent_grants", "1056", "64"),
        ("ring_order", "0", "1"),
        ("queues", "1", "2"),
        ("indirect", "32", "64"),
    ],
)
def test_numeric_settings(setting, good, bad):
    assert judged(played(), settings={setting: good}).outcome is Outcome.PASS
    verdict = judged(played(), settings={setting: bad})
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0] == f"asked for {setting}={bad}, but on device 51712 it was {good}"


def test_a_frontend_that_is_not_linux_s_may_use_any_id():
    for probes, outcome in ((None, Outcome.FAIL), ({"dom0": EVENTS.keys()}, Outcome.INCONCLUSIVE)):
        play = Play()
        named = ("fe_push", "be_request", "be_submit", "be_io_end", "be_response", "fe_response")
        play.io(wire.WRITE, **{event: {"id": 99} for event in named})
        play.close()
        if probes:
            play.rows = [row for row in play.rows if row[2]["source"] == "dom0"]
        facts = play.facts()
        facts = replace(facts, parameters={"dom0": facts.parameters["dom0"]}) if probes else facts
        assert check.judge(history.replay(play.table(probes), facts)).outcome is outcome


def test_several_queues_are_what_the_frontend_says():
    play = Play().set(queues=2, max_queues=2)
    play.io(wire.WRITE)
    play.close()
    assert judged(play, settings={"queues": "2"}).outcome is Outcome.PASS
    assert judged(play, settings={"queues": "1"}).outcome is Outcome.INCONCLUSIVE


def test_dom0_has_as_many_processors_as_were_asked_for():
    wanted = {"dom0_vcpus": "2"}
    assert judged(played(), settings=wanted, cpus={"dom0": 2}).outcome is Outcome.PASS
    assert judged(played(), settings=wanted).outcome is Outcome.PASS  # dom0's trace is lost: not known
    verdict = judged(played(), settings=wanted, cpus={"dom0": 1})
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons == ("asked for dom0_vcpus=2, but dom0 had 1",)


def test_a_guest_whose_trace_is_lost_is_known_by_what_it_left_in_xenstore():
    play = played()
    play.rows = [row for row in play.rows if row[2]["source"] != "guest1"]
    probes = {"dom0": EVENTS.keys(), "xen": EVENTS.keys()}
    path = "/local/domain/1/device/vbd/51712/feature-persistent"
    for during, decided in (({}, 0), ({path: "1"}, 2)):
        facts = replace(play.facts(), ended="guest-panic", during=during)
        verdict = check.judge(history.replay(play.table(probes), facts))
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.rules["R9"].decided == decided
        assert not any("disagree" in reason for reason in verdict.reasons)
