"""Sides of a comparison: which runs belong together, and which differences are more than chance."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from blkproof.analysis.report.compare import Comparison, comparisons
from blkproof.analysis.report.html import render
from blkproof.analysis.report.json import dumps
from blkproof.analysis.report.model import Run, named
from blkproof.analysis.verdict import Outcome

PATCHED = {"xen_blkback": {"patches": [{"file": "<b>.patch", "subject": "s", "sha256": "0"}], "source": None}}
TREE = {
    "xen_blkback": {
        "patches": [],
        "source": {"directory": "linux", "sha256": "12", "git": "abcdef0123456789", "dirty": True},
        "left_out": ["MAINTAINERS"],
    }
}


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """``run(variants, maps=..., **info)``."""

    def make(variants: dict[str, Any] | None = None, *, maps: int = 64, **more: Any) -> Run:
        outcome = more.pop("outcome", Outcome.PASS)
        findings = more.pop("findings", ())
        metrics = replace(make_run().verdict.metrics, maps=maps)
        return make_run(
            info={"variants": variants or {}, **more}, metrics=metrics, outcome=outcome, findings=findings
        )

    return make


def differs(pair: Comparison, key: str) -> bool | None:
    return next(figure.differs for figure in pair.figures if figure.key == key)


def test_runs_of_the_same_scenario_and_settings_belong_together(run: Callable[..., Run]) -> None:
    runs = [
        run(),
        run(PATCHED),
        run(TREE),
        run(PATCHED, settings={"persistent": "on"}),
        run(scenario="alone"),
    ]
    assert [(pair.without, pair.own) for pair in comparisons(runs)] == [
        ((runs[0],), (runs[1],)),
        ((runs[0],), (runs[2],)),
    ]
    assert comparisons([run(), run()]) == []


@pytest.mark.parametrize(
    ("without", "own", "expected"),
    [
        ([64], [64], False),
        ([64], [640], None),
        ([64, 64], [640, 640], True),
        ([64, 64, 64], [64, 64, 65], False),
        ([86, 86, 86], [92, 96, 92], False),
        ([86, 86, 86], [142, 146, 142], True),
        ([0, 0, 0], [3, 3, 3], False),
        ([0, 0, 0], [30, 30, 30], True),
        ([1077, 1164, 3706], [2677, 1100, 3000], False),
        ([100, 110, 105], [200, 210, 190], True),
    ],
)
def test_a_difference_is_more_than_chance(
    run: Callable[..., Run], without: list[int], own: list[int], expected: bool | None
) -> None:
    runs = [run(maps=count) for count in without] + [run(PATCHED, maps=count) for count in own]
    (pair,) = comparisons(runs)
    assert differs(pair, "maps_per_request") is expected
    assert differs(pair, "requests") is False


def test_what_the_load_decides_differs_by_any_amount(make_run: Callable[..., Run]) -> None:
    plain = make_run().verdict
    one_more = replace(plain, metrics=replace(plain.metrics, segments={1: 319, 32: 321}))
    runs = [make_run(), make_run()]
    runs += [replace(run, info={**run.info, "variants": PATCHED}, verdict=one_more) for run in runs]
    (pair,) = comparisons(runs)
    assert differs(pair, "segments_per_request") is True


def test_what_only_one_side_has_differs(run: Callable[..., Run], make_run: Callable[..., Run]) -> None:
    kept = make_run(metrics=replace(make_run().verdict.metrics, lookups=10, hits=9))
    (pair,) = comparisons([kept, run(PATCHED)])
    assert differs(pair, "hit_share") is True


def test_the_sentence_says_what_the_driver_does_to_the_verdict(
    run: Callable[..., Run], broken_run: Run
) -> None:
    bad = {"findings": broken_run.verdict.findings}
    cases = [
        (run(), run(PATCHED), "With <b>.patch the verdict is the same as without: pass."),
        (run(), run(PATCHED, **bad), "R21 is broken only with <b>.patch."),
        (run(**bad), run(PATCHED), "R21 is broken only without it."),
        (run(**bad), run(PATCHED, **bad), "R21 is broken on both sides."),
        (
            run(),
            run(PATCHED, outcome=Outcome.INCONCLUSIVE),
            "With <b>.patch the verdict is: inconclusive; without: pass.",
        ),
        (
            run(ended="harness"),
            run(PATCHED),
            "There is nothing to compare: a run could not be carried out.",
        ),
        (run(ended="stall"), run(PATCHED), "With <b>.patch the verdict is: pass; without: harness failed."),
    ]
    for without, own, sentence in cases:
        (pair,) = comparisons([without, own])
        assert pair.sentence() == sentence


def test_json_has_the_comparison_at_the_runs_with_the_driver(run: Callable[..., Run]) -> None:
    plain, patched = map(json.loads, dumps([run(), run(PATCHED, maps=640)]).splitlines())
    assert plain["compare"] is None
    assert patched["drivers"] == PATCHED
    assert patched["compare"]["outcomes"] == {"without": ["pass"], "with": ["pass"]}
    assert patched["compare"]["figures"]["maps_per_request"] == {
        "without": {"low": 0.1, "median": 0.1, "high": 0.1},
        "with": {"low": 1.0, "median": 1.0, "high": 1.0},
        "differs": None,
    }


def test_the_page_has_them_side_by_side_and_escapes_names(run: Callable[..., Run]) -> None:
    page = render([run(), run(), run(PATCHED, maps=640), run(PATCHED, maps=640)])
    assert 'id="compare"' in page
    assert "With &lt;b&gt;.patch" in page
    assert "<b>.patch" not in page
    assert "≠ differs" in page
    assert "--blkback-patch &#39;&lt;b&gt;.patch&#39;" in page
    assert 'id="compare"' not in render([run()])


def test_the_page_says_what_a_driver_was_made_of(run: Callable[..., Run]) -> None:
    page = render([run(TREE)])
    assert "linux (git abcdef012345, changed), sha256 12" in page
    assert "MAINTAINERS" in page
    assert "--blkback-src linux" in page


STOCK = {"patches": [], "source": None, "left_out": [], "stock": {"build_id": "25<7", "differs": None}}


@pytest.mark.parametrize(
    ("differs", "says"),
    [(None, "by a twin&#39;s DWARF"), (".text+0x10: code", "by function entries: .text+0x10: code")],
)
def test_the_page_says_how_stock_drivers_were_probed(
    run: Callable[..., Run], differs: str | None, says: str
) -> None:
    stock = {**STOCK, "stock": {"build_id": "25<7", "differs": differs}}
    made_of = {"xen_blkback": {**PATCHED["xen_blkback"]}, "xen_blkfront": stock}
    page = render([run(made_of)])
    assert f"build-id 25&lt;7, probed {says}" in page
    assert "--drivers stock --blkback-patch" in page
    assert run({"xen_blkfront": stock}).drivers == "stock xen-blkfront"


def test_titles_tell_the_sides_apart(run: Callable[..., Run]) -> None:
    assert [r.title for r in named([run(), run(TREE)])] == [
        "without",
        "with xen-blkback of linux (git abcdef012345, changed)",
    ]


@pytest.mark.parametrize("junk", [7, {"xen_blkback": 7}, {"xen_blkback": {"patches": 7, "source": 7}}])
def test_a_broken_account_of_drivers_breaks_no_report(run: Callable[..., Run], junk: Any) -> None:
    odd = run()
    odd = replace(odd, info={**odd.info, "variants": junk})
    render([odd])
    dumps([odd])
