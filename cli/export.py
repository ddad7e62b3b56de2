"""``blkproof export``: the events of a capture, for pandas, DuckDB and the like."""

from __future__ import annotations

from pathlib import Path

import click
from blkproof.cli.console import tidy_errors


@click.command()
@click.argument("capture", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File.")
@tidy_errors
def export(capture: Path, output: Path) -> None:
    """Write all events of CAPTURE, in the order of their clock, as one Parquet file.

    One row an event; `blkproof events` documents the columns. What was lost is in the metadata.
    """
    from blkproof.traces.capture import Capture
    from blkproof.traces.table import EventTable

    table = EventTable.build(Capture.open(capture))
    table.to_parquet(output)
    click.echo(f"{output}: {len(table)} events, {len(table.losses)} stretches of loss")
