"""The table at the end of a run, on terminals good and bad."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

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
