"""JSON: fixed keys in a fixed order."""

import json
from collections.abc import Callable

from blkproof.analysis.report.json import dumps
from blkproof.analysis.report.model import Run


def test_keys_are_fixed(broken_run: Run) -> None:
    told = json.loads(dumps([broken_run]))
    assert list(told) == [
        "scenario",
        "settings",
        "outcome",
        "findings",
        "rules",
        "requests",
        "seconds",
        "accelerator",
        "accelerator_why",
        "capture",
        "metrics",
        "reasons",
        "messages",
        "features",
        "ended",
        "drivers",
        "tracing_cost",
        "compare",
    ]
    assert told["outcome"] == "fail"
    assert told["tracing_cost"] == {
        "off": 1000,
        "on": 1234,
        "percent": 23.4,
        "unit": "instructions per request",
    }
    assert (told["accelerator"], told["seconds"]) == ("tcg", 3.14)
    assert told["settings"] == {"persistent": "off", "indirect": "on"}
    assert told["rules"]["R52"] == {
        "checked": 1000,
        "decided": 990,
        "reasons": ["10 handles were mapped before the trace was armed"],
    }
    (finding,) = told["findings"]
    assert {
        "rule": "R21",
        "level": "MUST",
        "text": "request 21 was answered twice",
    }.items() <= finding.items()


def test_one_line_a_run_and_the_same_each_time(make_run: Callable[..., Run]) -> None:
    assert "\n" not in dumps([make_run()])
    assert dumps([make_run()]) == dumps([make_run()])


def test_outcomes_are_told_apart(make_run: Callable[..., Run], broken_run: Run) -> None:
    ends = {"ok": "pass", "guest-panic": "crash", "qemu-died": "harness", "stall": "harness"}
    for ended, outcome in ends.items():
        assert json.loads(dumps([make_run(info={"ended": ended})]))["outcome"] == outcome
    crashed = make_run(info={"ended": "guest-panic"}, findings=broken_run.verdict.findings)
    assert json.loads(dumps([crashed]))["outcome"] == "fail"
