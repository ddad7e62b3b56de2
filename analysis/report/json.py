"""One JSON object a run, with fixed keys in a fixed order, for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from blkproof.analysis.report.compare import Comparison, comparisons
from blkproof.analysis.report.model import Run


def run_object(run: Run, comparison: Comparison | None = None) -> dict[str, Any]:
    """Give a run as plain data; ``seconds`` is None where the manifest does not tell it.

    ``compare`` is None but for a run with the user's own drivers beside which others ran without.
    """
    told = run.verdict.to_json()
    return {
        "scenario": run.scenario,
        "settings": dict(run.settings),
        "outcome": run.outcome,
        "findings": told["findings"],
        "rules": told["rules"],
        "requests": run.verdict.requests,
        "seconds": run.info.get("seconds"),
        "accelerator": run.accelerator,
        "accelerator_why": run.why,
        "capture": run.capture,
        "metrics": told["metrics"],
        "reasons": told["reasons"],
        "messages": told["messages"],
        "features": [
            {"name": item.name, "backend": item.backend, "frontend": item.frontend, "used": item.used}
            for item in run.features
        ],
        "ended": run.info.get("ended"),
        "drivers": dict(run.table("variants")),
        "tracing_cost": dict(run.table("tracing_cost")),
        "compare": comparison.to_json() if comparison else None,
    }


def dumps(runs: Sequence[Run]) -> str:
    """Write each run as one line of JSON."""
    by_run = {id(run): comparison for comparison in comparisons(runs) for run in comparison.own}
    return "\n".join(json.dumps(run_object(run, by_run.get(id(run))), allow_nan=False) for run in runs)
