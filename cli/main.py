"""The command line: one module per command, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click
from blkproof.cli import exits

COMMANDS: Final = {
    "doctor": ("doctor:doctor", "Say what this host can do, and why not."),
    "image": ("image:image", "Build, list and lock images."),
    "list": ("scenarios:list_", "List the scenarios."),
    "run": ("run:run", "Run scenarios on a real Xen and check what happened."),
    "cost": ("cost:cost", "Measure what tracing a scenario costs."),
    "check": ("check:check", "Check a capture again."),
    "explain": ("explain:explain", "Tell what a capture shows, finding by finding."),
    "report": ("report:report", "Write the HTML report of captures."),
    "export": ("export:export", "Write a capture's events as one Parquet file."),
    "shell": ("shell:shell", "Drop into dom0 or the guest of a scenario, tracing armed."),
    "rules": ("rules:rules", "Print the rules that a trace is checked against."),
    "events": ("events:events", "Print the events that a trace is made of."),
}
"""Command -> (module:attribute in this room, one line of help): ``--help`` imports none of them."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the commands in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(f"blkproof.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="blkproof")
def cli() -> None:
    """Boot a real Xen, record a live block ring from all sides, and prove it against the protocol.

    \b
    First steps:
      blkproof doctor                       what can this host do?
      blkproof run basic                    boot, load the disk, check, report
      blkproof run basic --set persistent=on,off --set indirect=on,off
      blkproof run all --blkfront-patch my.patch --compare
      blkproof explain runs/.../basic-...   what a capture shows
    \b
    Exit codes:
      0  pass           the protocol was kept
      1  fail           the protocol was broken
      2  inconclusive   something was not seen, so nothing is claimed
      3  harness        blkproof or its host failed
      4  crash          the guest, dom0 or Xen crashed
      64 usage          the command line was wrong
    """  # noqa: D301 - \b is click's mark for text that it must not wrap


def main() -> None:
    """Run the command line; every failure ends in one line and one of the exit codes."""
    try:
        outcome: Any = cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(exits.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(exits.HARNESS)
    except (click.Abort, KeyboardInterrupt):
        click.echo("blkproof: interrupted; every machine was ended", err=True)
        sys.exit(exits.INTERRUPTED)
    sys.exit(outcome if isinstance(outcome, int) else exits.PASS)
