"""One JSON object a run, with fixed keys in a fixed order, for other programs."""

from __future__ import annotations

import json
from typing import Any

from blkproof.analysis.report.model import Run


def run_object(run: Run) -> dict[str, Any]:
    """Give a run as plain data; ``seconds`` is None where the manifest does not tell it."""
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
        "features": [
            {"name": item.name, "backend": item.backend, "frontend": item.frontend, "used": item.used}
            for item in run.features
        ],
        "ended": run.info.get("ended"),
    }


def dumps(run: Run) -> str:
    """Write a run as one line of JSON."""
    return json.dumps(run_object(run), allow_nan=False)
