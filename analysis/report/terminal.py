"""The end of ``blkproof run`` on a terminal: one line a run, then what was found, told in full.

It fits 80 columns and says with words whatever it also says with colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from blkproof.analysis.explain import explain
from blkproof.analysis.report.compare import Comparison, comparisons
from blkproof.analysis.report.model import Run, RunOutcome, differing, named, visible
from blkproof.analysis.report.sides import sides
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
    pairs = comparisons(runs)
    compared = {id(run) for pair in pairs for run in (*pair.without, *pair.own)}
    single = [run for run in runs if id(run) not in compared]
    for number, pair in enumerate(pairs):
        if number:
            console.print()
        _print_pair(pair, console)
    if single or not pairs:
        _print_table(single, console)
    console.print()
    console.print(Text(headline(runs) + ".", style="bold"), Text(lede(runs)))
    told: set[tuple[str, str]] = set()
    for run in runs:
        for finding in run.verdict.findings:
            if id(run) in compared and (run.drivers, finding.rule) in told:
                continue  # in another round
            told.add((run.drivers, finding.rule))
            console.print()
            console.print(_line(f"{finding.rule}  {finding.text}", "bold red"))
            console.print(_line(_hanging(f"in {run.title}, {run.capture}", console.width), "dim"))
            for words in explain(finding).splitlines():
                console.print(_line(_hanging(words, console.width)))
    _print_undecided([*single, *(run for pair in pairs for run in _examples(pair))], console)


def _examples(pair: Comparison) -> Iterator[Run]:
    """Pick of each side the first run with each outcome: further rounds say the same again."""
    for side in (pair.without, pair.own):
        yield from {run.outcome: run for run in reversed(side)}.values()


def _print_undecided(runs: Sequence[Run], console: Console) -> None:
    open_questions = undecided(runs)
    if open_questions:
        console.print()
        console.print(Text("What could not be decided:", style="bold yellow"))
    for item in open_questions:
        console.print(_line(_hanging(f"{item['label']}: {item['reason']}", console.width)))


def _print_pair(pair: Comparison, console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column(_line(pair.own[0].scenario), no_wrap=True)
    table.add_column("without")
    table.add_column(_line(f"with {pair.drivers}"))
    table.add_column("")
    for row in sides(pair):
        style = "bold" if row.differs else ""
        mark = {True: "≠", False: "", None: "?"}[row.differs]
        table.add_row(
            row.name, _line(row.without, style), _line(row.own, style), Text(mark, style="bold red")
        )
    if settings := pair.settings:
        console.print(_line(", ".join(settings)))
    console.print(table)
    console.print(_line(pair.sentence(), "bold"))
    if any(row.differs is None for row in sides(pair)):
        console.print(Text("? one round cannot tell a difference from chance: see --rounds", style="dim"))


def _besides(run: Run, runs: Sequence[Run]) -> str:
    """Tell what no column of the table tells of a run: settings, and drivers of the user's own.

    A setting that is not told is at its default; where the manifest tells no defaults, all that differ are.
    """
    told = run.unusual if run.table("defaults") else {k: str(run.settings[k]) for k in differing(run, runs)}
    for place, setting in enumerate(("persistent", "indirect")):
        if told.get(setting) in ("on", "off", _used(run, place, setting)):
            del told[setting]
    parts = [f"{key} {value}" for key, value in told.items()]
    return ", ".join([*parts, *([f"with {run.drivers}"] if run.drivers else [])])


def _print_table(runs: Sequence[Run], console: Console) -> None:
    """Print one row a run; what has no column stands below, by its number."""
    besides = [_besides(run, runs) for run in runs]
    notes = {text: f"[{number}]" for number, text in enumerate(dict.fromkeys(filter(None, besides)), 1)}
    names = [f"{run.scenario} {notes.get(text, '')}" for run, text in zip(runs, besides, strict=True)]
    console.print(_table(runs, names))
    for text, number in notes.items():
        console.print(_line(f"{number} {text}"))
    if any(not run.comparable and run.verdict.metrics.iops is not None for run in runs):
        console.print(Text("* not comparable: TCG is an emulator, its wall time says nothing", style="dim"))


def _table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for head, side in COLUMNS:
        table.add_column(head, justify=side, no_wrap=head != "scenario", overflow="fold")
    for run, name in zip(runs, names, strict=True):
        metrics = run.verdict.metrics
        iops = "—" if metrics.iops is None else f"{metrics.iops:,.0f}{'' if run.comparable else '*'}"
        table.add_row(
            _line(name),
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
