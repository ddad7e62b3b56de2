"""``blkproof cost``: what tracing a scenario costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from blkproof.cli import exits
from blkproof.cli.console import progress, tidy_errors
from blkproof.cli.settings import SET, combinations, scenario_named, validated

if TYPE_CHECKING:
    from blkproof.harness.cost import Cost


@click.command()
@click.argument("scenario")
@SET
@click.option("--image", "image_name", default="debian12", show_default=True, help="Recipe, by name or file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a combination of settings.")
@tidy_errors
def cost(scenario: str, sets: tuple[str, ...], image_name: str, as_json: bool) -> int:
    """Measure what tracing SCENARIO costs: instructions per request with all recorders off and on.

    The machine counts instructions (as with `run --accel icount`), so the figures are nearly the same each
    time. They are kept, and stand in each later capture of the same scenario, settings, image and probes.
    """
    from blkproof.harness.accel import probe
    from blkproof.harness.costing import measure
    from blkproof.harness.recording import Plan
    from blkproof.images.build import build
    from blkproof.images.recipe import load_recipe

    chosen = scenario_named(scenario)
    wanted = [validated(chosen, settings) for settings in combinations(sets)]
    with progress("cost") as say:
        image = build(load_recipe(image_name), progress=say)
        accelerator = probe(image, "icount")
        for settings in wanted:
            found = measure(Plan(chosen, chosen.resolve(settings), image, accelerator, {}, say))
            if as_json:
                named = {"scenario": chosen.name, "settings": settings, "image": image.name}
                click.echo(json.dumps({**named, **found.to_json()}))
            else:
                click.echo(_words(" ".join([chosen.name, *(f"{k}={v}" for k, v in settings.items())]), found))
    return exits.PASS


def _words(name: str, found: Cost) -> str:
    told = found.to_json()
    rows = [("recorders off", told["off"], ""), ("recorders on", told["on"], f"{told['percent']:+.1f} %")]
    rows += [
        (f"  of it {recorder}", more, f"{100 * more / told['off']:+.1f} %")
        for recorder, more in told["parts"].items()
    ]
    lines = [f"{label:<16}{count:>12,} {share:>9}".rstrip() for label, count, share in rows]
    head = f"{name}: {told['unit']}, {told['requests']:,} requests"
    return "\n".join([head, *lines, told["method"]])
