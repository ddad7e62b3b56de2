"""``blkproof check``: judge captures again."""

from __future__ import annotations

from pathlib import Path

import click
from blkproof.cli.console import tidy_errors
from blkproof.cli.verdicts import judged, show

CAPTURES = click.argument(
    "captures",
    metavar="CAPTURE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)


@click.command()
@CAPTURES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a capture, nothing else.")
@tidy_errors
def check(captures: tuple[Path, ...], as_json: bool) -> int:
    """Check each CAPTURE, a directory that a run wrote, against the protocol.

    The capture is opened read-only and its hashes are verified first: one that was cut off or
    altered is refused.
    """
    return show([judged(capture) for capture in captures], as_json=as_json)
