"""``--set``: from words on the command line to the settings of each run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from blkproof.harness.scenario import Scenario

SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE[,VALUE...]",
    help="A setting, such as persistent=off. Several values make several runs; `blkproof list` has them all.",
)


ALL: Final = "all"
"""What stands for every scenario that comes with blkproof."""


def scenarios_named(names: Sequence[str]) -> list[Scenario]:
    """Load scenarios by name or file, ``all`` for every one; click.UsageError says which there are."""
    from blkproof.harness.scenario import list_scenarios

    found: dict[str, Scenario] = {}
    for name in names:
        for scenario in list_scenarios() if name == ALL else [scenario_named(name)]:
            if found.setdefault(scenario.name, scenario) != scenario:
                raise click.UsageError(f"{name}: there are two scenarios called {scenario.name}")
    return list(found.values())


def scenario_named(name: str) -> Scenario:
    """Load a scenario by name or file; click.UsageError says which there are."""
    from blkproof.harness.errors import ScenarioError
    from blkproof.harness.scenario import load_scenario

    try:
        return load_scenario(name)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from error


def combinations(sets: Sequence[str]) -> list[dict[str, str]]:
    """Give every combination of the values asked for, in the order of the command line."""
    values: dict[str, list[str]] = {}
    for word in sets:
        name, equals, wanted = word.partition("=")
        if not (name and equals and wanted):
            raise click.UsageError(f"--set {word}: write NAME=VALUE, as in persistent=off")
        values[name] = wanted.split(",")
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def validated(scenario: Scenario, settings: dict[str, str]) -> dict[str, str]:
    """Return the settings if the scenario takes them; click.UsageError names the legal ones."""
    from blkproof.harness.errors import ScenarioError

    try:
        scenario.resolve(settings)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from error
    return settings
