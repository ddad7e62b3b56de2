"""From a capture, its table and its verdict to a :class:`~blkproof.analysis.report.model.Run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from blkproof.analysis.report.model import Feature, Quality, Run, Source
from blkproof.analysis.report.ring_picture import INDEX_MASK, RingMoment
from blkproof.analysis.verdict import Bound, Finding, Verdict
from blkproof.traces.capture import Capture
from blkproof.traces.events import EVENTS
from blkproof.traces.table import EventTable

OP_INDIRECT: Final = 6
LARGEST_RING: Final = 512
"""Entries of the largest ring that Linux makes (order 4)."""
TAKEN: Final = ("be_request", "be_discard", "be_other")
"""Events in which the backend takes a request off the ring."""


def collect(capture: Capture, table: EventTable, verdict: Verdict, name: str | None = None) -> Run:
    """Take from a checked capture what a report shows; ``name`` is its path as the user gave it."""
    rings = {index: ring_at(table, finding) for index, finding in enumerate(verdict.findings)}
    return Run(
        capture=name or str(capture.path),
        info=capture.run,
        verdict=verdict,
        quality=quality_of(table),
        features=tuple(features_of(table)),
        rings={index: ring for index, ring in rings.items() if ring},
    )


def quality_of(table: EventTable) -> Quality:
    """Tell how much of the truth a table holds."""
    lost: Counter[str] = Counter()
    for window in table.losses:
        lost[window.source] += 1 if window.count is None else window.count
    seen = {source: sum(counts.values()) for source, counts in table.counts.items()}
    names = sorted(seen | lost, key=lambda name: (name == "xen", name))
    armed = {source: names & EVENTS.keys() for source, names in table.probes.items()}
    missing = [
        f"{source} {name}"
        for source, names in sorted(armed.items())
        for name, kind in EVENTS.items()
        if kind.origin in _origins(source) and name not in names
    ]
    return Quality(
        sources=tuple(Source(name, seen.get(name, 0), lost[name]) for name in names),
        armed=sum(len(names) for names in armed.values()) if armed else None,
        missing=tuple(missing),
    )


def _origins(source: str) -> tuple[str, ...]:
    if source == "xen":
        return ("xen",)
    return ("backend", "either") if source == "dom0" else ("frontend", "either")


def features_of(table: EventTable) -> list[Feature]:
    """Read the negotiated features back from what the kernels wrote to xenstore and then did."""
    said: dict[str, dict[str, str]] = {"backend": {}, "frontend": {}}
    for write in table.rows(["xs_write"]):
        side = "backend" if write.source == "dom0" else "frontend"
        if "vbd/" in write.dir:
            said[side][write.node] = write.value
    requests = list(table.payload.get("fe_queue", {}).get("persistent", ()))
    if not requests and not any(said.values()):
        return []
    found = [_persistent(table, said), _indirect(table, said)]
    found += [
        feature
        for feature in (
            _agreed("queues", said, "multi-queue-max-queues", "multi-queue-num-queues", "1"),
            _agreed("ring page order", said, "max-ring-page-order", "ring-page-order", "0"),
        )
        if feature
    ]
    return found


def _persistent(table: EventTable, said: Mapping[str, Mapping[str, str]]) -> Feature:
    key = "feature-persistent"
    flags = {int(flag) for flag in table.payload.get("fe_queue", {}).get("persistent", ())}
    used = {frozenset({1}): "on", frozenset({0}): "off"}.get(
        frozenset(flags), "mixed" if flags else "not seen"
    )
    return Feature(
        "persistent grants",
        said["backend"].get(key, "nothing"),
        said["frontend"].get(key, "nothing"),
        used,
        {"fe_queue": table.count("fe_queue"), "be_add": table.count("be_add")},
    )


def _indirect(table: EventTable, said: Mapping[str, Mapping[str, str]]) -> Feature:
    limits = {int(limit) for limit in table.payload.get("fe_queue", {}).get("max_indirect", ())}
    sent = int((table.payload["be_request"]["op"] == OP_INDIRECT).sum()) if table.count("be_request") else 0
    used = " or ".join(str(limit) if limit else "off" for limit in sorted(limits)) or "not seen"
    return Feature(
        "indirect segments",
        said["backend"].get("feature-max-indirect-segments", "nothing"),
        "writes no key",
        used,
        {"be_request": table.count("be_request"), "of them indirect": sent},
    )


def _agreed(
    name: str, said: Mapping[str, Mapping[str, str]], offer: str, choice: str, default: str
) -> Feature | None:
    if offer not in said["backend"]:
        return None
    chosen = said["frontend"].get(choice)
    return Feature(name, f"at most {said['backend'][offer]}", chosen or "nothing", chosen or default, {})


def ring_at(table: EventTable, finding: Finding) -> RingMoment | None:
    """Give the ring when the last event of a finding happened that tells of it; None where none does."""
    for bound in reversed(finding.bound):
        rows = table.index.get(bound.event)
        if rows is None or bound.event not in (*TAKEN, "be_response"):
            continue
        here = np.flatnonzero((table.offset[rows] == bound.offset) & (table.tsc[rows] == bound.tsc))
        if len(here):
            fields = table.payload[bound.event]
            return _moment(table, bound, {name: fields[name][here[0]] for name in fields})
    return None


def _moment(table: EventTable, bound: Bound, at: Mapping[str, Any]) -> RingMoment | None:
    """Read the indices in an event; the slot in question is that of its request or its response."""
    size = int(at["nr_ents"])
    if not 0 < size <= LARGEST_RING:
        return None
    slot = int(at["rsp_prod_pvt"]) if bound.event == "be_response" else int(at["req_cons"]) - 1
    rsp_prod = int(at["s_rsp_prod"])
    return RingMoment(
        nr_ents=size,
        req_prod=int(at["s_req_prod"]),
        req_cons=int(at["req_cons"]),
        rsp_prod=rsp_prod,
        rsp_cons=_taken_before(table, bound.tsc, rsp_prod),
        marked=slot & INDEX_MASK,
        name=bound.label,
    )


def _taken_before(table: EventTable, tsc: int, otherwise: int) -> int:
    """Give the frontend's rsp_cons as it last told it before a moment; ``otherwise`` when it told none."""
    last = (-1, otherwise)
    for name in ("fe_queue", "fe_discard", "fe_irq"):
        rows = table.index.get(name)
        if rows is None:
            continue
        place = int(np.searchsorted(table.tsc[rows], tsc, side="right")) - 1
        if place >= 0:
            last = max(last, (int(rows[place]), int(table.payload[name]["rsp_cons"][place])))
    return last[1]
