"""The commands that print what is known: each prints all of it, for people and for machines."""

import json

import pytest
from blkproof.analysis.registry import RULES
from blkproof.cli.main import cli
from blkproof.harness.scenario import list_scenarios
from blkproof.harness.settings import SETTINGS
from blkproof.traces.events import EVENTS
from click.testing import CliRunner


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("rules", list(RULES)),
        ("events", list(EVENTS)),
        ("list", [*SETTINGS, *(scenario.name for scenario in list_scenarios())]),
    ],
)
def test_all_of_it_is_printed(command: str, names: list[str]):
    text = CliRunner().invoke(cli, [command]).output
    told = json.dumps(json.loads(CliRunner().invoke(cli, [command, "--json"]).output))
    for name in names:
        assert name in text
        assert f'"{name}"' in told


def test_rules_tell_what_no_trace_can_decide():
    rules = json.loads(CliRunner().invoke(cli, ["rules", "--json"]).output)
    undecidable = {rule["id"]: rule["undecidable"] for rule in rules if not rule["decidable"]}
    assert "4 KiB" in undecidable["R35"]
    assert f"not decidable here: {undecidable['R35']}" in CliRunner().invoke(cli, ["rules"]).output
    assert "R40" not in undecidable
