"""The table at the end of a run, on terminals good and bad."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from blkproof.analysis.report.model import Run
from blkproof.analysis.report.terminal import print_runs
from blkproof.analysis.verdict import Outcome
from rich.console import Console


def printed(*runs: Run, colour: bool = False) -> str:
    console = Console(
        file=StringIO(), width=80, force_terminal=colour, color_system="standard" if colour else None
    )
    print_runs(runs, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_one_line_a_run_within_80_columns(make_run: Callable[..., Run]) -> None:
    runs = [
        make_run(outcome=Outcome.INCONCLUSIVE, reasons=("dom0 lost 12 records",)),
        make_run(info={"ended": "qemu-died", "seconds": 121.5}),
    ]
    out = printed(*runs)
    assert max(map(len, out.splitlines())) <= 80
    first = next(line for line in out.splitlines() if line.startswith("basic"))
    assert first.split() == [
        "basic",
        "off",
        "32",
        "?",
        "inconclusive",
        "640",
        "16.50",
        "16.50",
        "16.50",
        "4,312*",
        "3.1",
    ]
    assert "* not comparable: TCG" in out
    assert "1 of 2 runs could not be carried out." in out
    assert "dom0 lost 12 records" in out
    assert "the run ended by: qemu-died" in out


def test_a_finding_is_explained_below(broken_run: Run) -> None:
    out = printed(broken_run)
    assert "✗ fail" in out
    assert "R21 (MUST)" in out
    assert "request 21 was answered twice" in out
    assert "dom0/trace/cpu0.raw" in out
    assert "However" in out


def test_without_colour_there_is_no_escape_and_with_it_there_is(broken_run: Run) -> None:
    assert "\x1b" not in printed(broken_run)
    assert "\x1b" in printed(broken_run, colour=True)


def test_no_color_is_obeyed(broken_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[31m" not in printed(broken_run, colour=True)


def test_a_guest_can_neither_steer_the_terminal_nor_its_markup(
    make_run: Callable[..., Run], broken_run: Run
) -> None:
    finding = replace(
        broken_run.verdict.findings[0], text="\x1b[2Jgone [bold]x[/bold]", contradiction="\x07\x9b2J"
    )
    out = printed(make_run(findings=(finding,), info={"scenario": "a\x1bb"}))
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert "\\x1b[2Jgone [bold]x[/bold]" in out


def test_a_feature_that_was_not_seen_carries_a_question_mark(make_run: Callable[..., Run]) -> None:
    assert "off?" in printed(make_run(features=()))


def test_what_no_column_tells_of_a_run_stands_below_by_number(make_run: Callable[..., Run]) -> None:
    defaults = {"persistent": "on", "indirect": "on", "max_persistent_grants": "1056", "queues": "1"}

    def told(*settings: dict[str, str], **known: dict[str, str]) -> list[str]:
        runs = [make_run(info={"settings": defaults | own, **known}) for own in settings]
        lines = printed(*runs).split("\n* not")[0].splitlines()[2:]
        assert max(map(len, lines)) <= 80
        return [line.split(" off ")[0].rstrip() for line in lines]

    settings = [
        {"persistent": "off"},
        {"persistent": "frontend-only", "indirect": "32"},
        {"max_persistent_grants": "32", "queues": "2"},
        {"persistent": "frontend-only"},
    ]
    assert told(*settings, defaults=defaults) == [
        "basic",
        "basic [1]",
        "basic [2]",
        "basic [1]",
        "[1] persistent frontend-only",
        "[2] max_persistent_grants 32, queues 2",
    ]
    assert told({"queues": "1"}, {"queues": "2"}) == [
        "basic [1]",
        "basic [2]",
        "[1] queues 1",
        "[2] queues 2",
    ]
    assert told({"queues": "2"}) == ["basic"], "alone, and of an older capture: nothing to tell it from"


def own(make_run: Callable[..., Run], *changes: dict[str, int], **more: Any) -> list[Run]:
    """Make runs with a patch, whose counts differ."""
    made_of = {"xen_blkfront": {"patches": [{"file": "my.patch", "subject": "x"}], "source": None}}
    return [
        make_run(info={"variants": made_of}, metrics=replace(make_run().verdict.metrics, **change), **more)
        for change in changes
    ]


def test_runs_with_a_patch_stand_beside_those_without(make_run: Callable[..., Run], broken_run: Run) -> None:
    plain = make_run().verdict.metrics
    runs = [
        *(make_run(metrics=replace(plain, notifications=count)) for count in (900, 910)),
        *own(
            make_run,
            *({"notifications": count, "maps": 0} for count in (905, 915)),
            findings=broken_run.verdict.findings,
        ),
    ]
    lines = [line.rstrip() for line in printed(*runs).splitlines()]
    assert lines[0] == "persistent off, indirect on"
    assert [line.split() for line in lines[1:4]] == [
        ["basic", "without", "with", "my.patch"],
        ["verdict", "✓", "pass", "×2", "✗", "fail", "×2", "≠"],  # noqa: RUF001 - the sign of times
        ["broken", "rules", "none", "R21", "≠"],
    ]
    (maps,) = (line for line in lines if line.startswith("maps"))
    assert maps.split() == ["maps/request", "16.50", "0.00", "≠"]
    (notified,) = (line for line in lines if line.startswith("notif"))
    assert notified.split("  ", 1)[1].strip() == "1.41 (1.41 to 1.42)  1.42 (1.41 to 1.43)"
    assert "R21 is broken only with my.patch." in lines
    assert sum("However" in line for line in lines) == 1, (
        "the same finding of another round is not told again"
    )


def test_one_round_is_too_little_to_tell_counts_apart(make_run: Callable[..., Run]) -> None:
    out = printed(make_run(), *own(make_run, {"maps": 0}))
    (maps,) = (line for line in out.splitlines() if line.startswith("maps"))
    assert maps.split() == ["maps/request", "16.50", "0.00", "?"]
    assert "see --rounds" in out
    assert "With my.patch the verdict is the same as without: pass." in out


def test_the_same_reason_of_further_rounds_is_not_told_again(make_run: Callable[..., Run]) -> None:
    lost = {"outcome": Outcome.INCONCLUSIVE, "reasons": ("dom0 lost 12 records",)}
    out = printed(make_run(), make_run(), *own(make_run, {}, {}, **lost))
    assert out.count("dom0 lost 12 records") == 1
    assert "? inconclusive ×2" in out  # noqa: RUF001 - the sign of times


def test_probes_that_do_not_fit_a_driver_are_named_with_their_reason(make_run: Callable[..., Run]) -> None:
    missing = {f"be_{number}": f"probe be_{number}: there is no function f{number}()" for number in range(5)}
    blind = tuple(f"{rule} decided 0 of 0: it needs be_0" for rule in ("R9", "R21", "R52", "R9", "R21"))
    (run,) = own(make_run, {}, outcome=Outcome.INCONCLUSIVE, reasons=blind)
    out = printed(replace(run, info={**run.info, "missing": missing}))
    assert "probe be_0: there is no function f0()" in out
    assert "2 more probes that do not fit" in out
    assert "[1] with my.patch" in out
