"""``blkproof shell``: look around in a running scenario."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from blkproof.cli import exits
from blkproof.cli.console import progress, tidy_errors
from blkproof.cli.settings import SET, combinations, scenario_named, validated

if TYPE_CHECKING:
    from blkproof.harness.machine import Machine
    from blkproof.harness.shell import Where


@click.command()
@click.argument("scenario")
@SET
@click.option(
    "--in",
    "where",
    type=click.Choice(["dom0", "guest1"]),
    default="dom0",
    show_default=True,
    help="Which domain's shell.",
)
@click.option("--image", "image_name", default="debian12", show_default=True, help="Recipe, by name or file.")
@tidy_errors
def shell(scenario: str, sets: tuple[str, ...], where: Where, image_name: str) -> int:
    """Drop into dom0 or the guest of SCENARIO: the disk is attached, tracing is armed, the load waits.

    The load begins when you leave the shell (`exit`); the run is recorded and sealed as any other.
    Standard input may also be a script. A visit to the guest goes over its network line, whose
    grants are recorded too.
    """
    from blkproof.harness.accel import probe
    from blkproof.harness.session import run as run_session
    from blkproof.harness.shell import held, visit
    from blkproof.images.build import build
    from blkproof.images.recipe import load_recipe

    chosen = scenario_named(scenario)
    wanted = combinations(sets)
    if len(wanted) != 1:
        raise click.UsageError("--set: a shell has one value for each setting")
    settings = validated(chosen, wanted[0])
    out = Path("runs") / f"{datetime.now():%Y%m%dT%H%M%S}-shell"

    def at_load(machine: Machine, domid: int) -> None:
        say(f"this is {where}; the load begins when you leave")
        visit(machine, domid, where)

    with progress("shell") as say:
        image = build(load_recipe(image_name), progress=say)
        capture = run_session(
            held(chosen),
            settings,
            image=image,
            accelerator=probe(image),
            out=out,
            progress=say,
            at_load=at_load,
        )
        say(f"capture: {capture}")
    return exits.PASS
