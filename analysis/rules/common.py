"""What several rules say in the same words."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import SEGMENTS_SEEN


def offers(run: History, ring: Ring) -> list[Bound]:
    """Name the writes of feature-persistent that counted when ``ring`` was first used: B and F."""
    found = []
    for label, path in (("B", paths.back), ("F", paths.front)):
        write = run.store.at(path(ring.device, "feature-persistent"), ring.begin)
        if write is not None and write.event is not None:
            found.append(names.written(label, write.event))
    return found


def unknown_offers(run: History, ring: Ring) -> str:
    """Say why it is not known whether both sides agreed on persistent grants."""
    return (
        f"what dom0 and {run.guest(ring)} wrote to feature-persistent of device {ring.device.vdev} "
        "was not recorded"
    )


def unseen(run: History, judge: Judge, half: BackHalf) -> str:
    """Say why the segments or grants of ``half`` are not all known."""
    end = half.response.tsc if half.response else run.end
    if gap := judge.gap(BACKEND, half.taken.tsc, end):
        return gap
    if half.nr > SEGMENTS_SEEN:
        return f"only the first {SEGMENTS_SEEN} segments of a request are recorded"
    if half.response is None:
        return "the recording ended before the backend had parsed the request"
    if half.response.status != wire.OKAY:
        return "the backend refused the request before its segments were recorded"
    return "the backend answered a request whose segments were not recorded"


def front_unseen(run: History, judge: Judge, ring: Ring, half: BackHalf) -> str:
    """Say why the frontend's half of a request is not known."""
    gap = judge.gap(run.guest(ring), run.begin, half.taken.tsc)
    return gap or "the frontend's half of the request was not recorded"


def unfinished(run: History, judge: Judge, begin: int) -> str:
    """Say why something that began at ``begin`` has no end."""
    return judge.gap(BACKEND, begin, run.end) or "the recording ended first"
