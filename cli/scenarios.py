"""``blkproof list``: the scenarios, and what can be switched in them."""

from __future__ import annotations

import json

import click
from blkproof.cli.settings import ALL


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def list_(as_json: bool) -> None:
    """List the scenarios, one line each, and the settings that `--set` takes."""
    from blkproof.harness.scenario import list_scenarios
    from blkproof.harness.settings import SETTINGS

    known = list_scenarios()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "scenarios": {scenario.name: scenario.description for scenario in known},
                    "settings": {
                        name: {"meaning": item.meaning, "default": item.default, "values": item.values()}
                        for name, item in SETTINGS.items()
                    },
                },
                indent=2,
            )
        )
        return
    click.echo("Scenarios:")
    for scenario in known:
        click.echo(f"  {scenario.name:<22} {scenario.description}")
    click.echo(f"  {ALL:<22} each of them")
    click.echo("\nSettings, for --set NAME=VALUE:")
    for name, item in SETTINGS.items():
        click.echo(f"  {name:<22} {item.meaning}")
        click.echo(f"  {'':<22} {item.values()} [default: {item.default}]")
