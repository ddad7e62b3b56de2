"""Doubts about the evidence itself: settings that were not in force, and observers who disagree.

Nothing in here blames a driver.  Whatever it finds keeps a verdict from being PASS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from blkproof.analysis import store as paths
from blkproof.analysis.entities import Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.losses import words
from blkproof.analysis.metrics import Metrics

_OFFERS: Final[Mapping[tuple[bool | None, bool | None], str]] = {
    (True, True): "on",
    (False, False): "off",
    (True, False): "backend-only",
    (False, True): "frontend-only",
}
"""Names of what backend and frontend offer."""

_CHOSEN: Final[Mapping[str, tuple[str, int]]] = {
    "ring_order": ("ring-page-order", 0),
    "queues": ("multi-queue-num-queues", 1),
}
"""Setting -> the key in which the frontend writes what it chose, and what it means if it writes none."""


def doubts(run: History, metrics: Metrics) -> tuple[str, ...]:
    """Return why the evidence should not be trusted as it is, one line each."""
    return (*_settings(run), *_ended(run), *_load(run), *_observers(run, metrics), *run.facts.absent)


def _settings(run: History) -> list[str]:
    """Compare what was asked for with what the two sides really used."""
    found = {
        f"asked for {name}={asked}, but on device {ring.device.vdev} it was {real}"
        for ring in run.rings
        for name, asked in sorted(run.facts.settings.items())
        if (real := _in_force(run, ring, name, str(asked))) is not None and real != str(asked)
    }
    return [*_machine(run), *sorted(found)]


def _machine(run: History) -> list[str]:
    asked, real = run.facts.settings.get("dom0_vcpus"), run.facts.cpus.get(BACKEND)
    if None in (asked, real) or str(asked) == str(real):
        return []
    return [f"asked for dom0_vcpus={asked}, but {BACKEND} had {real}"]


def _in_force(run: History, ring: Ring, name: str, asked: str) -> str | None:
    """Return the value of a setting that ``ring`` really had, in the words of the setting, if known."""
    match name:
        case "persistent":
            return None if None in ring.offers else _OFFERS[ring.offers]
        case "indirect":
            limit = _indirect(ring)
            if limit is None or asked in ("on", "off"):
                return None if limit is None else ("on" if limit else "off")
            return str(limit) if limit else "off"
        case "max_persistent_grants":
            return None if run.cap is None else str(run.cap)
        case "ring_order" | "queues":
            key, unsaid = _CHOSEN[name]
            return str(run.store.number(paths.front(ring.device, key), ring.begin) or unsaid)
    return None


def _indirect(ring: Ring) -> int | None:
    """Return how many segments an indirect request on ``ring`` may have, 0 for none, as the frontend saw."""
    queued = (
        [half.queue for half in ring.front.halves if half.queue.event == "fe_queue"] if ring.front else []
    )
    return int(queued[0].max_indirect) if queued else None


def _ended(run: History) -> list[str]:
    if run.facts.ended == "ok":
        return []
    waiting = sum(
        request.back is None or request.back.response is None
        for ring in run.rings
        for request in ring.requests
    )
    return [f"the run ended with {run.facts.ended!r}, {waiting} requests were outstanding"]


def _load(run: History) -> list[str]:
    fio = run.facts.fio
    if fio is None or not fio.error:
        return []
    why = "data came back other than they were written" if fio.verify_failed else os.strerror(fio.error)
    return [f"the load failed: fio ended with errno {fio.error}, {why}"]


def _observers(run: History, metrics: Metrics) -> list[str]:
    if run.facts.ended != "ok":
        # The recorders did not stop together, and what was on its way was not counted by all.
        return []
    if run.lost:
        # Lost records explain any difference; what the drivers' kernels lost the rules tell.
        return [words(window) for window in run.lost if window.source == "xen"]
    counts = [(f"{o.what} from {i.name!r} on", o) for i in metrics.intervals for o in i.observed]
    return [
        f"the observers disagree on {what}: frontend {o.frontend}, backend {o.backend}, Xen {o.xen}"
        for what, o in [*((o.what, o) for o in metrics.observed), *counts]
        if not o.agree
    ]
