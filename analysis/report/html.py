"""The report as one HTML file that needs nothing else: no script, no font, no network.

The page is a function of the runs alone, so that the same captures give the same bytes.  The
templates escape whatever they are given; only pictures, which escape for themselves, pass as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from blkproof.analysis.report import origin, pictures, view
from blkproof.analysis.report.compare import comparisons
from blkproof.analysis.report.model import Run, named, plural, worst
from blkproof.analysis.report.sides import sides
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(runs: Sequence[Run], out: Path) -> None:
    """Write the page of these runs to a file, in the order in which they are given."""
    out.write_bytes(render(runs).encode("utf-8", "backslashreplace"))


def render(runs: Sequence[Run]) -> str:
    """Make the page of these runs."""
    runs = named(runs)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(
        headline=view.headline(runs),
        subtitle=_subtitle(runs),
        outcome_of_all=worst(runs),
        lede=view.lede(runs),
        figures=view.figures(runs),
        comparisons=_comparisons(runs),
        quality=view.quality(runs),
        rules=view.rules(runs),
        matrix=view.matrix(runs),
        comparable=all(run.comparable for run in runs),
        negotiation=view.negotiation(runs),
        pictures={"bars": pictures.work(runs), "groups": pictures.groups(runs)},
        stage_table=pictures.stage_table(runs),
        findings=view.findings(runs, broken=True),
        remarks=view.findings(runs, broken=False),
        no_findings=view.no_findings(runs),
        undecided=view.undecided(runs),
        environment=origin.environment(runs),
        reproduce=origin.reproduce(runs),
        words=view.WORDS,
        marks=view.MARKS,
    )


def _comparisons(runs: Sequence[Run]) -> list[view.Row]:
    return [
        {
            "title": " · ".join([pair.own[0].scenario, *pair.settings]),
            "drivers": pair.drivers,
            "sentence": pair.sentence(),
            "rows": sides(pair),
        }
        for pair in comparisons(runs)
    ]


def _subtitle(runs: Sequence[Run]) -> str:
    names = ", ".join(dict.fromkeys(run.scenario for run in runs)) or "no run"
    started = sorted(str(run.info["started"]) for run in runs if run.info.get("started"))
    return f"{names} · {plural(len(runs), 'run')}" + (f" · {started[0]}" if started else "")
