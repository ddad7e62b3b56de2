"""The end of ``blkproof run`` on a terminal: one line a run, then what was found, told in full.

It fits 80 columns and says with words whatever it also says with colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, Literal

from blkproof.analysis.explain import explain
from blkproof.analysis.report.model import Run, RunOutcome, named, visible
from blkproof.analysis.report.view import MARKS, headline, lede, ratio, undecided
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES: Final[dict[RunOutcome, str]] = {
    "pass": "bold blue",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "harness": "bold",
    "crash": "bold magenta",
}

COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("scenario", "left"),
    ("persis-\ntent", "left"),
    ("indi-\nrect", "left"),
    ("verdict", "left"),
    ("re-\nquests", "right"),
    ("seg\n/req", "right"),
    ("maps\n/req", "right"),
    ("unmaps\n/req", "right"),
    ("IOPS", "right"),
    ("s", "right"),
)


def print_runs(runs: Sequence[Run], console: Console) -> None:
    """Print the table of the runs, the verdict of all, and below it findings and open questions."""
    runs = named(runs)
    console.print(_table(runs))
    if any(not run.comparable and run.verdict.metrics.iops is not None for run in runs):
        console.print(Text("* not comparable: TCG is an emulator, its wall time says nothing", style="dim"))
    console.print()
    console.print(Text(headline(runs) + ".", style="bold"), Text(lede(runs)))
    for run in runs:
        for finding in run.verdict.findings:
            console.print()
            console.print(_line(f"{finding.rule}  {finding.text}", "bold red"))
            console.print(_line(_hanging(f"in {run.title}, {run.capture}", console.width), "dim"))
            for words in explain(finding).splitlines():
                console.print(_line(_hanging(words, console.width)))
    open_questions = undecided(runs)
    if open_questions:
        console.print()
        console.print(Text("What could not be decided:", style="bold yellow"))
    for item in open_questions:
        console.print(_line(_hanging(f"{item['label']}: {item['reason']}", console.width)))


def _table(runs: Sequence[Run]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name, side in COLUMNS:
        table.add_column(name, justify=side, no_wrap=name != "scenario", overflow="fold")
    for run in runs:
        metrics = run.verdict.metrics
        iops = "—" if metrics.iops is None else f"{metrics.iops:,.0f}{'' if run.comparable else '*'}"
        table.add_row(
            _line(run.scenario),
            _line(_used(run, 0, "persistent")),
            _line(_used(run, 1, "indirect")),
            Text(f"{MARKS[run.outcome]} {run.outcome}", style=STYLES[run.outcome]),
            f"{run.verdict.requests:,}",
            ratio(metrics.segments_per_request),
            ratio(metrics.maps_per_request),
            ratio(metrics.unmaps_per_request),
            iops,
            _seconds(run),
        )
    return table


def _used(run: Run, place: int, setting: str) -> str:
    """Give a feature as it was negotiated; where that was not seen, what was asked for, with a mark."""
    if len(run.features) > place:
        return run.features[place].used
    return f"{run.settings[setting]}?" if setting in run.settings else "?"


def _seconds(run: Run) -> str:
    seconds = run.info.get("seconds")
    return f"{seconds:.1f}" if isinstance(seconds, int | float) else "—"


def _hanging(words: str, width: int) -> str:
    """Wrap a line below its own beginning, so that the steps of an argument stay apart."""
    lead = " " * (2 + len(words) - len(words.lstrip()))
    return textwrap.fill(
        words.strip(),
        width,
        initial_indent=lead,
        subsequent_indent=lead + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line(words: str, style: str = "") -> Text:
    """Make text for the terminal that shows escape sequences instead of obeying them, reads no markup."""
    return Text(visible(words), style=style)
