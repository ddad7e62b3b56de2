"""``blkproof rules``: what a trace is checked against."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of text.")
def rules(as_json: bool) -> None:
    """Print every rule: id, level, side, what it demands, its source and the events that it needs.

    A rule that no trace can decide here is listed with the reason; LEGAL looks wrong, but breaks nothing.
    """
    from blkproof.analysis.registry import RULES

    known = sorted(RULES.values(), key=lambda rule: int(rule.id[1:]))
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "id": rule.id,
                        "level": rule.level,
                        "side": rule.side,
                        "source": rule.source,
                        "obligation": rule.obligation,
                        "needs": sorted(rule.needs),
                        "also": sorted(rule.also),
                        "decidable": not rule.undecidable,
                        "undecidable": rule.undecidable or None,
                    }
                    for rule in known
                ],
                indent=2,
            )
        )
        return
    for rule in known:
        click.echo(f"{rule.id:<4} {rule.level:<6} {rule.side:<9} {rule.obligation}")
        click.echo(f"{'':21}source: {rule.source}")
        if rule.undecidable:
            click.echo(f"{'':21}not decidable here: {rule.undecidable}")
        if rule.needs:
            click.echo(f"{'':21}needs:  {', '.join(sorted(rule.needs))}")
        if rule.also:
            click.echo(f"{'':21}uses:   {', '.join(sorted(rule.also))}")
