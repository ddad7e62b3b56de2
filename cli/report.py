"""``blkproof report``: the page."""

from __future__ import annotations

from pathlib import Path

import click
from blkproof.cli import exits
from blkproof.cli.check import CAPTURES
from blkproof.cli.console import progress, tidy_errors
from blkproof.cli.verdicts import judged


@click.command()
@CAPTURES
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File.")
@tidy_errors
def report(captures: tuple[Path, ...], output: Path) -> int:
    """Write one self-contained HTML page about all CAPTUREs: same captures, same bytes."""
    from blkproof.analysis.report.html import write_report

    with progress("report") as say:
        runs = []
        for capture in captures:
            say(f"checking {capture}")
            runs.append(judged(capture))
        write_report(runs, output)
    click.echo(output)
    return exits.PASS
