"""From captures on disk to judged runs: what ``run``, ``check``, ``explain`` and ``report`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blkproof.analysis.report.model import Run


def judged(capture_path: Path) -> Run:
    """Open, decode and check a capture; CaptureError if it is not whole."""
    from blkproof.analysis.check import examine
    from blkproof.analysis.report.collect import collect
    from blkproof.traces.capture import Capture

    capture = Capture.open(capture_path)
    examination = examine(capture)
    return collect(capture, examination.history.table, examination.verdict, str(capture_path))


def without_capture(scenario: str, settings: Mapping[str, str], reason: str, **facts: Any) -> Run:
    """Give the run that a host failure kept from leaving a capture: nothing seen, nothing claimed."""
    from blkproof.analysis.report.model import Run
    from blkproof.analysis.verdict import Outcome, Verdict

    info = {"scenario": scenario, "settings": dict(settings), "ended": "harness", **facts}
    return Run(capture="", info=info, verdict=Verdict(Outcome.INCONCLUSIVE, reasons=(reason,)))


def show(runs: Sequence[Run], *, as_json: bool) -> int:
    """Print judged runs, one JSON object a line or a table, and give the exit code of them all."""
    from blkproof.cli import exits

    if as_json:
        from blkproof.analysis.report.json import dumps

        print(dumps(runs))
    else:
        from blkproof.analysis.report.terminal import print_runs
        from rich.console import Console

        print_runs(runs, Console())
    return exits.of(run.outcome for run in runs)
