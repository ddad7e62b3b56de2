"""How both sides begin with a new ring, and what they agree on each time: R27 and R64."""

from __future__ import annotations

from typing import Final

from blkproof.analysis import store as paths
from blkproof.analysis import wire
from blkproof.analysis.entities import Device
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_QUEUED: Final = ("fe_queue", "fe_discard")
_TAKEN: Final = ("be_request", "be_discard", "be_other")
_FRESH: Final = {"s_req_prod": 0, "s_rsp_prod": 0, "s_req_event": 1, "s_rsp_event": 1}
"""What SHARED_RING_INIT leaves on the shared page."""


@rule(
    id="R27",
    level="MUST",
    side="both",
    source="ring.h XEN_FRONT_RING_INIT, BACK_RING_ATTACH; Linux setup_blkring, xen_blkif_map",
    obligation="A new ring begins with all indices 0 and both event indices 1, and the backend with the "
    "first request that has no response.",
    needs={"fe_connect", "fe_queue", "fe_push", "be_thread_start", "be_request"},
    also={"fe_discard", "be_discard", "be_other"},
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: play.io(wire.WRITE, fe_push={"s_rsp_event": 0}),
)
def begins_at_zero(run: History, judge: Judge) -> None:
    """Look at the first request of each ring on both sides, if its beginning was recorded."""
    fresh: dict[tuple[str, int], Event] = {}
    queued: dict[tuple[str, int], tuple[Event, Event]] = {}
    for event in run.table.rows(["fe_connect", *_QUEUED, "fe_push", "be_thread_start", *_TAKEN]):
        ring = event.source, event.ring if event.event.startswith("be_") else event.rinfo
        if event.event in ("fe_connect", "be_thread_start"):
            fresh[ring] = event
            queued.pop(ring, None)
        elif event.event in _TAKEN and (start := fresh.pop(ring, None)) is not None:
            _first_taken(judge, start, event)
        elif event.event in _QUEUED and (start := fresh.pop(ring, None)) is not None:
            if event.event == "fe_queue":
                queued[ring] = start, event
        elif event.event == "fe_push" and (pair := queued.pop(ring, None)) is not None:
            _first_pushed(judge, *pair, event)


def _first_pushed(judge: Judge, start: Event, queue: Event, push: Event) -> None:
    wrong = [
        f"{name} is {found}"
        for name, due in (("req_prod_pvt", 1), ("rsp_cons", 0), *_FRESH.items())
        if (found := getattr(push, name)) != due
    ]
    if not wrong:
        judge.holds()
    elif gap := judge.gap(push.source, start.tsc, push.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "frontend",
            f"the frontend begins with a ring on which {wrong[0]}",
            bound=[
                Bound.to("N", start, "the frontend prepares a ring"),
                Bound.to("Q", queue, "it queues the first request"),
                Bound.to("P", push, f"request id {push.id} is pushed"),
            ],
            because=["P pushes the first request after N"],
            contradiction=", ".join(wrong),
        )


def _first_taken(judge: Judge, start: Event, taken: Event) -> None:
    index = (taken.req_cons - 1) & wire.INDEX_MASK
    waiting = (taken.s_req_prod - taken.s_rsp_prod) & wire.INDEX_MASK
    if index == taken.rsp_prod_pvt == taken.s_rsp_prod and waiting <= taken.nr_ents:
        judge.holds()
    elif gap := judge.gap(BACKEND, start.tsc, taken.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "backend",
            f"the backend begins with request {index} where rsp_prod is {taken.s_rsp_prod}",
            bound=[
                Bound.to("N", start, "the ring's thread starts"),
                Bound.to("R", taken, f"request id {taken.id} is taken from ring entry {index}"),
            ],
            because=["R is the first request that is taken after N", f"the ring has {taken.nr_ents} entries"],
            contradiction=f"rsp_prod is {taken.s_rsp_prod}, rsp_prod_pvt {taken.rsp_prod_pvt}, "
            f"and {waiting} requests wait",
        )


@rule(
    id="R64",
    level="LINUX",
    side="both",
    source="Linux blkfront_gather_backend_features, connect_ring",
    obligation="At each connection both sides agree anew, on what their parameters and the other side's keys "
    "say then.",
    needs={"fe_connect", "be_connect", "xs_write"},
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: (play.connect(fe_connect={"max_indirect": 256}), play.io(wire.WRITE)),
)
def agrees_anew(run: History, judge: Judge) -> None:
    """Compare what each side uses with xenstore as it was at that moment."""
    for event in run.table.rows(["fe_connect", "be_connect"]):
        if event.event == "be_connect":
            # Without a ring or a disk it only looks whether it is time to connect.
            if event.nr_rings and event.vbd:
                _used(run, judge, event, Device(event.dom, event.vbd), "persistent")
            continue
        device = Device(run.facts.domids.get(event.source, -1), event.vdev)
        _used(run, judge, event, device, "persistent")
        _used(run, judge, event, device, "max_indirect")


def _used(run: History, judge: Judge, event: Event, device: Device, what: str) -> None:
    backs = event.event == "be_connect"
    other = run.facts.guest(device.domid) if backs else BACKEND
    key = "feature-persistent" if what == "persistent" else "feature-max-indirect-segments"
    path = (paths.front if backs else paths.back)(device, key)
    offered = run.store.number(path, event.tsc) or 0
    due = (
        _segments(offered, event)
        if what == "max_indirect"
        else int(bool(event.feature_persistent and offered))
    )
    used = getattr(event, what)
    if used == due:
        judge.holds()
    elif gap := judge.gap(other or f"domain {device.domid}", 0, event.tsc):
        judge.undecided(gap)
    else:
        side = "backend" if backs else "frontend"
        write = run.store.at(path, event.tsc)
        said = [Bound.to("W", write.event, f"{key} = {offered}")] if write is not None and write.event else []
        judge.breaks(
            f"{side} {what}",
            f"the {side} of device {device.vdev} connects with {what} = {used} where {due} was agreed on",
            bound=[*said, Bound.to("N", event, f"the {side} connects")],
            because=[f"{key} of the other side is {offered} at N, and the {side}'s own parameter is known"],
            contradiction=f"{what} is {used} at N",
        )


def _segments(offered: int, event: Event) -> int:
    """Return the segments of an indirect request that both sides bear: as many as fit without are none."""
    most = min(offered, event.max_indirect_segments)
    return most if most > wire.DIRECT_SEGMENTS else 0
