"""What tracing costs, with loads that are only told of."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from blkproof.harness import cost, costing
from blkproof.harness.cost import Cost
from blkproof.harness.errors import SessionError
from blkproof.harness.host import Accelerator
from blkproof.harness.pool import Preparation
from blkproof.harness.recording import RECORDERS, Account, Plan
from blkproof.harness.scenario import load_scenario
from blkproof.traces.marks import Load

ON = Load(ticks=150_000, requests=10, ios=7)
ICOUNT = Accelerator("icount", "a test", "max", 1.0, deterministic=True)
TCG = Accelerator("tcg", "a test", "max", 1.0)


class PlannedHere(Plan):
    prepared = (Preparation("p1", lambda _: None), {})


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path))
    monkeypatch.setattr(cost, "qemu_version", lambda _: "7.2")
    scenario = load_scenario("basic")
    image = SimpleNamespace(digest="d1", modules={})
    return PlannedHere(scenario, scenario.resolve({}), image, ICOUNT, {}, lambda _: None)


@pytest.fixture
def loads(monkeypatch):
    """Loads by the recorders that are silent; all that were done are listed."""
    loads = {(): ON, RECORDERS: replace(ON, ticks=100_000, requests=0)}
    loads |= {(name,): replace(ON, ticks=150_000 - 10_000 * i) for i, name in enumerate(RECORDERS, 1)}
    done = []

    def record(plan, work, account):
        done.append(plan.silent)
        (work / "silent").write_text(repr(plan.silent))
        account.ended = "ok"

    monkeypatch.setattr(costing, "record", record)
    monkeypatch.setattr(costing, "read_load", lambda work, _: loads[eval((work / "silent").read_text())])
    return SimpleNamespace(done=done, of=loads)


def test_a_cost_is_told_by_request():
    told = Cost(10, 100_000, 150_000, {"dom0": 120_000}).to_json()
    assert (told["off"], told["on"], told["percent"], told["parts"]) == (
        10_000,
        15_000,
        50.0,
        {"dom0": 3_000},
    )
    assert told["unit"] == "instructions per request"


def test_measuring_does_the_load_with_all_with_none_and_without_each(plan, loads):
    found = costing.measure(plan)
    assert found == Cost(10, 100_000, 150_000, {"xen": 140_000, "dom0": 130_000, "guest": 120_000})
    assert loads.done == [(), RECORDERS, *((name,) for name in RECORDERS)]
    assert cost.load(cost.place(plan)) == found


def test_a_deterministic_run_measures_once(plan, loads, tmp_path):
    (tmp_path / "silent").write_text("()")
    told = costing.of_run(plan, tmp_path, Account(ended="ok"))
    assert told["percent"] == 50.0
    assert costing.of_run(plan, tmp_path, Account(ended="ok")) == told
    assert loads.done == [RECORDERS]


def test_other_runs_say_what_is_known_or_how_to_know_it(plan, loads, tmp_path):
    elsewhere = replace(plan, accelerator=TCG, settings={**plan.settings, "queues": "2"})
    why = "not measured; `blkproof cost basic --set queues=2` measures it"
    assert costing.of_run(elsewhere, tmp_path, Account(ended="ok")) == {"why": why}
    costing.measure(replace(elsewhere, accelerator=ICOUNT))
    assert costing.of_run(elsewhere, tmp_path, Account(ended="ok"))["percent"] == 50.0
    assert costing.of_run(replace(plan, accelerator=TCG), tmp_path, Account())["why"].startswith(
        "not measured"
    )
    assert loads.done[-1] == ("guest",)


def test_a_run_that_went_wrong_costs_nothing(plan, loads, tmp_path):
    assert costing.of_run(plan, tmp_path, Account(ended="stall")) == {
        "why": "not measured; the run ended with 'stall'"
    }
    assert loads.done == []


@pytest.mark.parametrize(
    ("silent", "load", "says"),
    [
        (RECORDERS, replace(ON, ios=6), "the loads differ"),
        ((), replace(ON, requests=0), "no request was seen"),
    ],
)
def test_loads_that_can_not_be_compared_are_no_cost(plan, loads, tmp_path, silent, load, says):
    loads.of[silent] = load
    with pytest.raises(SessionError, match=says):
        costing.measure(plan)
    (tmp_path / "silent").write_text("()")
    assert says in costing.of_run(plan, tmp_path, Account(ended="ok"))["why"]


def test_a_kept_cost_that_was_damaged_is_measured_again(plan):
    file = cost.place(plan)
    assert cost.load(file) is None
    cost.save(file, Cost(1, 2, 3))
    assert cost.load(file) == Cost(1, 2, 3)
    file.write_text("{")
    assert cost.load(file) is None
