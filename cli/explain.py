"""``blkproof explain``: tell what a capture shows."""

from __future__ import annotations

from pathlib import Path

import click
from blkproof.cli import exits
from blkproof.cli.console import tidy_errors
from blkproof.cli.verdicts import judged


@click.command()
@click.argument("capture", type=click.Path(exists=True, file_okay=False, path_type=Path))
@tidy_errors
def explain(capture: Path) -> int:
    """Tell what CAPTURE shows: each finding in full, then what every rule looked at."""
    from blkproof.analysis.explain import explain as told
    from blkproof.analysis.registry import RULES
    from blkproof.analysis.verdict import FAILING

    run = judged(capture)
    click.echo(f"{run.scenario}: {run.outcome}, {run.verdict.requests} requests, {run.accelerator}")
    for reason in run.verdict.reasons:
        click.echo(f"  {reason}")
    for message in run.verdict.messages:
        click.echo(f"  {message}")
    for finding in run.verdict.findings:
        click.echo()
        click.echo(told(finding))
    click.echo()
    for name, result in run.verdict.rules.items():
        found = {finding.level for finding in run.verdict.findings if finding.rule == name}
        mark = "broken" if found & FAILING else "remark" if found else "kept"
        state = mark if result.decided else "not decided"
        click.echo(f"{name:<4} {state:<11} {result.decided} of {result.checked}  {RULES[name].obligation}")
        for reason in result.reasons:
            click.echo(f"{'':17}{reason}")
    return exits.of([run.outcome])
