"""``blkproof events``: the schema of what is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def events(as_json: bool) -> None:
    """Print every kind of event: who records it, what happened, and its fields with their meaning."""
    from blkproof.traces.events import BASE, EVENTS

    if as_json:
        kinds = [asdict(kind) for kind in EVENTS.values()]
        click.echo(json.dumps({"base": [asdict(field) for field in BASE], "events": kinds}, indent=2))
        return
    click.echo("Every event has:")
    for field in BASE:
        click.echo(f"  {field.name:<16} {field.dtype:<8} {field.meaning}")
    for kind in EVENTS.values():
        click.echo(f"\n{kind.name} ({kind.origin}): {kind.meaning}")
        for field in kind.fields:
            click.echo(f"  {field.name:<16} {field.dtype:<8} {field.meaning}")
