"""Runs made by hand: everything that a report can show, in a few lines."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from blkproof.analysis.metrics import Metrics, Observed, Steps
from blkproof.analysis.report.model import Feature, Quality, Run, Source
from blkproof.analysis.report.ring_picture import RingMoment
from blkproof.analysis.verdict import Bound, Finding, Outcome, RuleResult, Verdict

INFO: Mapping[str, Any] = {
    "scenario": "basic",
    "settings": {"persistent": "off", "indirect": "on"},
    "accelerator": {"name": "tcg", "why": "KVM opens, but Xen dies on it"},
    "image": {
        "name": "debian12",
        "digest": "sha256:1f2e",
        "versions": {"xen": "4.17.5", "linux": "6.1.0-56"},
    },
    "qemu": "7.2.22",
    "cpu_model": "max,-smap,-avx,-xsave",
    "drivers": {"xen_blkback": "ab" * 32, "xen_blkfront": "cd" * 32},
    "seconds": 3.14,
    "started": "2026-11-20T09:31:07Z",
    "ended": "ok",
    "tracing_cost": {"off": 1000, "on": 1234, "percent": 23.4, "unit": "instructions per request"},
}

METRICS = Metrics(
    requests=640,
    segments={1: 320, 32: 320},
    maps=10560,
    unmaps=10560,
    notifications=900,
    tree_cap=1056,
    nr_ents=32,
    iops=4312.4,
    stages={"queue": [2000, 3000, 4000], "map": [20000, 21000, 90000], "total": [90000, 91000, 200000]},
    tree=Steps((1_000_000, 2_000_000, 9_000_000), (1, 32, 0)),
    outstanding=Steps((1_000_000, 3_000_000, 5_000_000), (1, 7, 0)),
    observed=(Observed("Requests", 640, 640, None), Observed("Grants mapped", None, 10560, 10560)),
)

RULES = {
    "R9": RuleResult("R9", 1, 1),
    "R21": RuleResult("R21", 640, 640),
    "R52": RuleResult("R52", 1000, 990, ("10 handles were mapped before the trace was armed",)),
}

TWICE = Finding(
    "R21",
    "MUST",
    "request 21 was answered twice",
    "Each consumed request gets exactly one response with its id.",
    (
        Bound(
            "Q7",
            "the backend took request 21",
            "be_request",
            100,
            "dom0",
            0,
            9,
            "dom0/trace/cpu0.raw",
            0x1A40,
        ),
        Bound(
            "S8",
            "the backend answered 21 again",
            "be_response",
            900,
            "dom0",
            0,
            9,
            "dom0/trace/cpu0.raw",
            0x2B80,
        ),
    ),
    ("Q7 < S8, because a response follows its request",),
    "Q7 had its response already",
    times=3,
)

RING = RingMoment(nr_ents=32, req_prod=40, req_cons=38, rsp_prod=35, rsp_cons=34, marked=35, name="S8")


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """``make_run(info={...}, outcome=..., findings=..., rings=...)``: a good run, with what differs."""

    def make(
        *,
        info: Mapping[str, Any] | None = None,
        outcome: Outcome = Outcome.PASS,
        findings: tuple[Finding, ...] = (),
        reasons: tuple[str, ...] = (),
        metrics: Metrics = METRICS,
        **more: Any,
    ) -> Run:
        verdict = Verdict(Outcome.FAIL if findings else outcome, findings, RULES, 640, metrics, reasons)
        fields: dict[str, Any] = {
            "capture": "runs/basic-1",
            "quality": Quality((Source("dom0", 3845, 0), Source("guest1", 2561, 0)), 48, ()),
            "features": (
                Feature("persistent grants", "0", "0", "off", {"fe_queue": 640}),
                Feature("indirect segments", "256", "writes no key", "32", {"be_request": 640}),
            ),
        }
        return Run(info={**INFO, **(info or {})}, verdict=verdict, **(fields | more))

    return make


@pytest.fixture
def broken_run(make_run: Callable[..., Run]) -> Run:
    """A run in which the backend answered a request twice."""
    return make_run(findings=(TWICE,), rings={0: RING})
