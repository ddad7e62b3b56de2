"""The page: what it says, that it says it safely, and always in the same bytes."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from blkproof.analysis.metrics import Interval, Observed
from blkproof.analysis.report.html import render, write_report
from blkproof.analysis.report.model import Feature, Quality, Run, Source
from blkproof.analysis.verdict import Outcome

VOID = {"meta", "br", "line", "rect", "polyline", "polygon", "path"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Collects tags, attributes and visible text; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_clean_run_is_told_from_verdict_to_command(make_run: Callable[..., Run]) -> None:
    text = Page(render([make_run()])).text
    for words in (
        "The run obeyed the protocol",
        "640 block requests checked against 3 rules; 99.39 % of 1,641 checks decided.",
        "No record was lost; every probe was armed; the observers agree on every count.",
        "backend 10,560 Xen 10,560",
        "R52 99 %",
        "persistent grants off",
        "✓ pass",
        "16.50 16.50 16.50",
        "4,312 not comparable: TCG",
        "cap 1056, far above",
        "+23.4 %: 1,234 instructions per request in place of 1,000",
        "ring size 32",
        "No rule was broken in any run.",
        "10 handles were mapped before the trace was armed",
        "KVM opens, but Xen dies on it",
        "blkproof run basic --set persistent=off --set indirect=on --accel tcg --image debian12",
        "blkproof explain runs/basic-1",
    ):
        assert words in text


def test_sections_come_in_the_order_in_which_they_are_believed(broken_run: Run) -> None:
    assert re.findall(r'<h2 id="(\w+)"', render([broken_run])) == [
        "quality",
        "matrix",
        "pictures",
        "findings",
        "rules",
        "environment",
    ]


def test_a_finding_is_told_with_its_records_and_its_ring(
    make_run: Callable[..., Run], broken_run: Run
) -> None:
    page = render([make_run(), broken_run])
    text = Page(page).text
    for words in (
        "1 of 2 runs broke the protocol",
        "Broken: R21. 1 fail, 1 pass.",
        "R21 request 21 was answered twice",
        "Let Q7 the backend took request 21 be_request of dom0, dom0/trace/cpu0.raw@0x1a40, tick 100",
        "because Q7 < S8, because a response follows its request",
        "However , Q7 had its response already: a contradiction.",
        "2 more cases like this in the same run.",
        "req_prod 40",
        "3 with the backend",
    ):
        assert words in text
    assert '<h1 class="fail">' in page
    assert 'class="slot offending"' in page


@pytest.mark.parametrize(
    "where", ["settings", "feature", "finding", "missing", "capture", "source", "metric"]
)
def test_what_a_guest_wrote_never_becomes_markup(
    make_run: Callable[..., Run], broken_run: Run, where: str
) -> None:
    finding = broken_run.verdict.findings[0]
    bound = replace(finding.bound[0], label=HOSTILE, what=HOSTILE, file=HOSTILE)
    hostile = replace(finding, text=HOSTILE, because=(HOSTILE,), contradiction=HOSTILE, bound=(bound,))
    runs = {
        "settings": make_run(info={"settings": {HOSTILE: HOSTILE}, "scenario": HOSTILE, "qemu": HOSTILE}),
        "feature": make_run(features=(Feature(HOSTILE, HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1}),)),
        "finding": make_run(
            findings=(hostile,), rings={0: replace(broken_run.rings[0], name=HOSTILE)}, reasons=(HOSTILE,)
        ),
        "missing": make_run(quality=Quality((), None, (HOSTILE,))),
        "capture": make_run(capture=HOSTILE, info={"started": HOSTILE, "ended": HOSTILE}),
        "source": make_run(quality=Quality((Source(HOSTILE, 1, 1),), 1, ())),
        "metric": make_run(
            metrics=replace(broken_run.verdict.metrics, observed=(Observed(HOSTILE, 1, 2, None),))
        ),
    }
    page = render([runs[where], make_run()])
    assert "<script" not in page
    assert "<img" not in page
    assert "alert(1)" in Page(page).text


def test_the_page_needs_nothing_but_itself(broken_run: Run) -> None:
    page = render([broken_run])
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert all(value.startswith("#") for _, attributes in tags if (value := attributes.get("href")))
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_same_runs_same_bytes(make_run: Callable[..., Run], broken_run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([make_run(), broken_run], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_report([broken_run, make_run()], tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_name_that_is_no_unicode_can_be_written(make_run: Callable[..., Run], tmp_path: Path) -> None:
    write_report([make_run(info={"qemu": "\ud800"})], tmp_path / "report.html")
    assert b"\\ud800" in (tmp_path / "report.html").read_bytes()


def test_losses_missing_probes_and_disagreement_are_said_first(make_run: Callable[..., Run]) -> None:
    run = make_run(
        outcome=Outcome.INCONCLUSIVE,
        reasons=("dom0 lost 12 records",),
        quality=Quality((Source("dom0", 100, 12),), 47, ("dom0 gt_unmap_many",)),
        metrics=replace(make_run().verdict.metrics, observed=(Observed("Responses", 640, 641, None),)),
    )
    text = Page(render([run])).text
    for words in (
        "The run could not be decided",
        "12 records lost; missing probes: dom0 gt_unmap_many; the observers differ in 1 count.",
        "frontend 640 backend 641 ≠ differ",
        "12 dom0",
        "No broken rule was seen, but not every run could be decided.",
        "dom0 lost 12 records",
    ):
        assert words in text


def test_what_was_counted_between_marks_stands_side_by_side(make_run: Callable[..., Run]) -> None:
    quiet = Interval("loaded", 5, (Observed("grants mapped", 0, 0, 0),))
    load = Interval("<i>load", 5, (Observed("grants mapped", 88, 87, 87), Observed("x", None, 4, 4)))
    run = make_run(metrics=replace(make_run().verdict.metrics, intervals=(quiet, load)))
    text = Page(render([run])).text
    assert "<i>load frontend 88 backend 87 Xen 87 ≠ differ backend 4 Xen 4" in text
    assert "the observers differ in 1 count." in text
    assert "loaded" not in text


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("guest-panic", "The run crashed the system under test"),
        ("qemu-died", "The run could not be carried out"),
    ],
)
def test_how_a_run_ended_is_never_mixed_up_with_a_verdict(
    make_run: Callable[..., Run], ended: str, words: str
) -> None:
    text = Page(render([make_run(info={"ended": ended, "notes": ["no word from dom0"]})])).text
    assert words in text
    assert f"the run ended by: {ended}; no word from dom0" in text


def test_kvm_runs_may_be_compared(make_run: Callable[..., Run]) -> None:
    page = render([make_run(info={"accelerator": {"name": "kvm", "why": "Xen booted on it"}})])
    assert "not comparable" not in page
    assert "emulat" not in page


def test_a_manifest_that_tells_nothing_still_makes_a_page(make_run: Callable[..., Run]) -> None:
    run = replace(make_run(), capture="", info={}, features=(), quality=Quality())
    run = replace(run, verdict=replace(run.verdict, metrics=type(run.verdict.metrics)(), rules={}))
    text = Page(render([run])).text
    assert "CPU model unknown" in text
    assert "blkproof explain" not in text
    assert "not measured" in text


def test_no_run_obeys_nothing() -> None:
    assert '<h1 class="inconclusive">Nothing was run</h1>' in render([])


def test_a_remark_on_quality_is_no_broken_obligation(make_run: Callable[..., Run], broken_run: Run) -> None:
    finding = replace(broken_run.verdict.findings[0], level="QUAL")
    run = make_run()
    run = replace(run, verdict=replace(run.verdict, findings=(finding,)))
    text = Page(render([run])).text
    assert "The run obeyed the protocol" in text
    assert "Findings 0 3 remarks on quality" in text
    assert "Remarks on quality These break no obligation" in text
    assert "Broken:" not in text


def test_the_same_finding_in_many_runs_does_not_bury_the_page(broken_run: Run) -> None:
    page = render([broken_run] * 10)
    assert page.count("<article") == 10
    assert page.count("<b>However</b>") == 3
    assert len(render([broken_run] * 100)) < 12 * len(render([broken_run] * 5))


def test_a_run_without_a_trace_claims_nothing_about_its_probes(make_run: Callable[..., Run]) -> None:
    text = Page(render([make_run(), make_run(quality=Quality())])).text
    assert "No record was lost; 1 run left no trace at all" in text
    assert "every probe was armed" not in text


def test_many_undecided_rules_are_summed_up(make_run: Callable[..., Run]) -> None:
    reasons = ("dom0 said nothing", *(f"{rule} decided 0 of 0: no probe" for rule in ("R9", "R21", "R52")))
    few = Page(render([make_run(reasons=reasons)])).text
    assert "R21 decided 0 of 0: no probe" in few
    run = make_run(reasons=(*reasons, "R30 decided 0 of 0: no probe"))
    rules = {**run.verdict.rules, "R30": run.verdict.rules["R9"]}
    many = Page(render([replace(run, verdict=replace(run.verdict, rules=rules))])).text
    assert "4 rules could not decide all" in many
    assert "R21 decided" not in many
    assert "dom0 said nothing" in many
