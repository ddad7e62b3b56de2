"""Which pictures the page shows, and of which runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from blkproof.analysis.metrics import STAGES, Steps
from blkproof.analysis.report import charts, svg
from blkproof.analysis.report.model import Run
from markupsafe import Markup

TIME: Final = "TSC ticks"

DRAWN: Final = 12
"""Runs with pictures of their own: more of them would bury the page."""

WORDS: Final[Mapping[str, str]] = {
    "queue": "frontend queues it → backend takes it",
    "map": "backend takes it → data pages mapped",
    "io": "data pages mapped → last bio ends",
    "unmap": "last bio ends → response written",
    "return": "response written → frontend takes it",
    "total": "frontend queues it → frontend is done",
}
"""What bounds each stage."""

Row = dict[str, Any]


class Plot(NamedTuple):
    """A picture with its caption, and a softer second line."""

    name: str
    picture: Markup
    note: str = ""


def work(runs: Sequence[Run]) -> list[Plot]:
    """Draw the counts per request of all runs."""
    wanted = (
        ("Segments per request", "segments_per_request"),
        ("Grant maps per request", "maps_per_request"),
        ("Grant unmaps per request", "unmaps_per_request"),
        ("Notifications per request", "notifications_per_request"),
    )
    return [
        Plot(
            name,
            charts.bars(
                f"{name}, by run",
                name.lower(),
                [charts.Bar(run.title, getattr(run.verdict.metrics, key)) for run in runs],
            ),
        )
        for name, key in wanted
    ]


def groups(runs: Sequence[Run]) -> list[Row]:
    """Draw everything that has one picture a run, then the latencies; what has no data is left out."""
    figures = [(run.title, run, run.verdict.metrics) for run in runs[:DRAWN]]
    made = [
        {
            "title": "Persistent grants held by the backend",
            "hint": "Grants in the backend's tree over the run, against its limit, max_persistent_grants.",
            "plots": [Plot(name, _persistent(run)) for name, run, data in figures if any(data.tree.value)],
        },
        {
            "title": "Requests outstanding on the ring",
            "hint": "Requests that the frontend pushed and has not seen completed, against the ring's size.",
            "plots": [Plot(name, _outstanding(run)) for name, run, data in figures if data.outstanding.value],
        },
        {
            "title": "Segments per request",
            "hint": "How many segments of up to one page a read or write carries. "
            "A request without indirect descriptors holds at most 11.",
            "plots": [Plot(name, _segments(run)) for name, run, data in figures if data.segments],
        },
    ]
    rest = f" The first {DRAWN} of {len(runs)} runs." if len(runs) > DRAWN else ""
    shared = {"legend": [], "kind": ""}
    drawn = [{**shared, **group, "hint": f"{group['hint']}{rest}"} for group in made if group["plots"]]
    return [*drawn, *_stages(runs)]


def _persistent(run: Run) -> Markup:
    metrics = run.verdict.metrics
    return charts.steps(
        f"persistent grants over time, {run.title}",
        (TIME, "grants"),
        _over_time(run, metrics.tree),
        cap=metrics.tree_cap,
        cap_name="cap",
    )


def _outstanding(run: Run) -> Markup:
    metrics = run.verdict.metrics
    return charts.steps(
        f"outstanding requests over time, {run.title}",
        (TIME, "requests"),
        _over_time(run, metrics.outstanding),
        cap=metrics.nr_ents,
        cap_name="ring size",
    )


def _over_time(run: Run, steps: Steps) -> charts.Steps:
    """Count time from the first thing that any curve of the run tells, up to the last."""
    metrics = run.verdict.metrics
    curves = [curve for curve in (metrics.tree, metrics.outstanding) if curve.tsc]
    start, end = min(curve.tsc[0] for curve in curves), max(curve.tsc[-1] for curve in curves)
    return charts.Steps([*(tsc - start for tsc in steps.tsc), end - start], [*steps.value, steps.value[-1]])


def _segments(run: Run) -> Markup:
    return charts.histogram(
        f"segments per request, {run.title}", ("segments", "requests"), run.verdict.metrics.segments
    )


def _stages(runs: Sequence[Run]) -> Iterator[Row]:
    timed = [run for run in runs if any(run.verdict.metrics.stages.values())]
    drawn = timed[: charts.LINES]
    if not timed:
        return
    samples = {key: [run.verdict.metrics.stages.get(key, ()) for run in drawn] for key in STAGES}
    values = [value for lines in samples.values() for line in lines for value in line]
    span = (float(np.percentile(values, 0.5)), float(max(values)))
    hint = "Share of requests that passed a stage within so many ticks, all on one logarithmic scale."
    if not all(run.comparable for run in runs):
        hint += " Under TCG the ticks are the emulator's own pace: compare shapes, not lengths."
    if len(timed) > len(drawn):
        hint += f" The first {len(drawn)} runs are drawn, all are in the table."
    unit = ticks_of(runs)
    yield {
        "title": "Latency by stage",
        "kind": "three",
        "hint": hint,
        "legend": [(charts.line_key(index), run.title) for index, run in enumerate(drawn)],
        "plots": [
            Plot(key, charts.distribution(f"latency, {WORDS[key]}", unit, lines, span), WORDS[key])
            for key, lines in samples.items()
            if any(lines)
        ],
    }


def ticks_of(runs: Sequence[Run]) -> str:
    """Name the unit of latencies: under emulation TSC ticks are virtual."""
    return "TSC ticks" if all(run.comparable for run in runs) else "virtual ticks, not comparable: TCG"


def stage_table(runs: Sequence[Run]) -> Row | None:
    """Give median and 99th percentile of every stage of every run."""
    names = [key for key in STAGES if any(run.verdict.metrics.stages.get(key) for run in runs)]
    if not names:
        return None
    rows = [
        {
            "label": run.title,
            "cells": [_percentiles(run.verdict.metrics.stages.get(key, ())) for key in names],
        }
        for run in runs
        if any(run.verdict.metrics.stages.values())
    ]
    return {"names": names, "rows": rows}


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return "—"
    return " / ".join(svg.short(value) for value in np.percentile(np.asarray(values, dtype=float), (50, 99)))
