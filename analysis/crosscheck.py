"""Doubts about the evidence itself: settings that were not in force, and observers who disagree.

Nothing in here blames a driver.  Whatever it finds keeps a verdict from being PASS.
"""

from __future__ import annotations

from blkproof.analysis import store as paths
from blkproof.analysis import wire
from blkproof.analysis.entities import Ring
from blkproof.analysis.facts import FRONTEND_MODULE
from blkproof.analysis.history import History
from blkproof.analysis.losses import words
from blkproof.analysis.metrics import Metrics


def doubts(run: History, metrics: Metrics) -> tuple[str, ...]:
    """Return why the evidence should not be trusted as it is, one line each."""
    return (*_settings(run), *_ended(run), *_observers(run, metrics), *run.facts.absent)


def _settings(run: History) -> list[str]:
    """Compare what was asked for with what the two sides really used."""
    found = []
    for ring in run.rings:
        for name, real in (("persistent", ring.persistent), ("indirect", _indirect(run, ring))):
            asked = _switch(run.facts.settings.get(name))
            if asked is None or real is None or asked is real:
                continue
            word = {True: "on", False: "off"}
            found.append(
                f"asked for {name}={word[asked]}, but on device {ring.device.vdev} it was {word[real]}"
            )
    return sorted(set(found))


def _indirect(run: History, ring: Ring) -> bool | None:
    """Tell whether indirect requests could be used on ``ring``."""
    if ring.front is not None and ring.front.halves:
        queued = [half.queue for half in ring.front.halves if half.queue.event == "fe_queue"]
        if queued:
            return bool(queued[0].max_indirect)
    offered = run.store.number(paths.back(ring.device, "feature-max-indirect-segments"), ring.begin)
    own = run.facts.number(run.guest(ring), FRONTEND_MODULE, "max_indirect_segments")
    if offered is None or own is None:
        return None
    return min(offered, own) > wire.DIRECT_SEGMENTS


def _switch(value: object) -> bool | None:
    return {"on": True, "off": False, "true": True, "false": False}.get(str(value).lower())


def _ended(run: History) -> list[str]:
    if run.facts.ended == "ok":
        return []
    waiting = sum(
        request.back is None or request.back.response is None
        for ring in run.rings
        for request in ring.requests
    )
    return [f"the run ended with {run.facts.ended!r}, {waiting} requests were outstanding"]


def _observers(run: History, metrics: Metrics) -> list[str]:
    if run.lost:
        # Lost records explain any difference; what the drivers' kernels lost the rules tell.
        return [words(window) for window in run.lost if window.source == "xen"]
    return [
        f"the observers disagree on {o.what}: frontend {o.frontend}, backend {o.backend}, Xen {o.xen}"
        for o in metrics.observed
        if not o.agree
    ]
