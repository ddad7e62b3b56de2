"""What the two sides offer each other in xenstore, and whether they keep to it: R9, R10, R12."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, Device, Ring
from blkproof.analysis.facts import BACKEND, BACKEND_MODULE, FRONTEND_MODULE
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import offers, unknown_offers
from blkproof.analysis.verdict import Bound
from blkproof.traces.errors import shown
from blkproof.traces.events import Event


@rule(
    id="R9",
    level="SHOULD",
    side="backend",
    source='blkif.h "feature-persistent"; Linux connect_ring',
    obligation="A backend keeps grants mapped if, and only if, both sides wrote feature-persistent = 1.",
    needs={"be_request", "be_map", "be_get", "be_get_ret", "be_add", "be_add_ret"},
    also={"xs_write"},
    obeys=lambda play: play.set(front_offer=0, front_parameter="N").io(wire.WRITE),
    breaks=lambda play: play.set(front_offer=0, front_parameter="N", back_keeps=True).io(wire.WRITE),
)
def keeps_as_agreed(run: History, judge: Judge) -> None:
    """Look for a backend that keeps grants unasked, or keeps none where it said that it would."""
    for ring in run.rings:
        if ring.back is None:
            continue
        halves = [half for half in ring.back.halves if half.has_data]
        if ring.persistent is None:
            judge.undecided(unknown_offers(run, ring), len(halves))
        elif ring.persistent:
            _must_keep(run, judge, ring, halves)
        else:
            _must_not_keep(run, judge, ring, halves)


def _must_not_keep(run: History, judge: Judge, ring: Ring, halves: list[BackHalf]) -> None:
    for half in halves:
        lookup = next((lookup for call in half.calls for lookup in call.lookups), None)
        if lookup is None:
            judge.holds()
            continue
        judge.breaks(
            "kept unasked",
            f"backend keeps grants of a frontend although they did not agree to it (request id {half.id})",
            level="MUST",
            bound=[
                *offers(run, ring),
                names.taken(half),
                Bound.to("L", lookup.event, f"look-up of grant {lookup.event.gref} in the tree"),
            ],
            because=["only a backend that keeps grants looks them up, so it acts as if both had offered it"],
            contradiction="not both sides had written feature-persistent = 1",
        )


def _must_keep(run: History, judge: Judge, ring: Ring, halves: list[BackHalf]) -> None:
    assert ring.back is not None
    mapped = [mapping for half in halves for mapping in half.mappings]
    kept = any(adding.done for adding in ring.back.addings)
    if kept or not mapped or run.cap == 0:
        judge.holds(len(halves))
    elif gap := judge.gap(BACKEND, ring.begin, run.end):
        judge.undecided(gap, len(halves))
    else:
        judge.breaks(
            "never kept",
            f"backend kept none of {len(mapped)} grants that it mapped although both sides agreed to it",
            bound=[*offers(run, ring), names.mapped(mapped[0])],
            because=[f"{len(mapped)} grants were mapped, and the limit of the tree is {run.cap}"],
            contradiction="the backend never put one of them into its tree",
        )


@rule(
    id="R10",
    level="MUST",
    side="both",
    source="Linux commits 9f5e0fe5d05f and e94c6101e151; connect_ring, talk_to_blkback",
    obligation="Each side advertises its own feature_persistent parameter, whatever the other side offers.",
    needs={"xs_write"},
    obeys=lambda play: play.set(back_offer=0, back_parameter="N").io(wire.WRITE),
    breaks=lambda play: play.set(back_offer=0, back_parameter="Y").io(wire.WRITE),
)
def advertises_parameter(run: History, judge: Judge) -> None:
    """Compare what was written to xenstore with the module parameters."""
    for device in run.store.devices:
        for event in run.store.writes(paths.back(device, "feature-persistent")):
            _advertises(run, judge, "backend", event)
        for event in run.store.writes(paths.front(device, "feature-persistent")):
            _advertises(run, judge, "frontend", event)


def _advertises(run: History, judge: Judge, side: str, event: Event) -> None:
    module = BACKEND_MODULE if side == "backend" else FRONTEND_MODULE
    parameter = run.facts.switch(event.source, module, "feature_persistent")
    if parameter is None:
        judge.undecided(f"the parameter feature_persistent of {module} in {event.source} is not known")
    elif event.value == str(int(parameter)):
        judge.holds()
    else:
        judge.breaks(
            f"{side} advertises",
            f"{side} advertises feature-persistent = {shown(event.value)} "
            f"with its parameter at {int(parameter)}",
            bound=[names.written("W", event)],
            because=[f"{module}'s parameter feature_persistent was {int(parameter)} before it connected"],
            contradiction=f"W says {shown(event.value)}",
        )


@rule(
    id="R12",
    level="MUST",
    side="frontend",
    source='blkif.h "feature-max-indirect-segments"; Linux blkfront_gather_backend_features',
    obligation="Indirect requests are used only if the backend offers them, with no more segments than both "
    "sides allow.",
    needs={"be_request"},
    also={"fe_queue", "fe_push", "xs_write"},
    obeys=lambda play: play.io(wire.WRITE, nr=20),
    breaks=lambda play: play.set(back_max_indirect=None).io(wire.WRITE, nr=20),
)
def indirect_as_offered(run: History, judge: Judge) -> None:
    """Compare every request with the limits that stood in xenstore and in the frontend's parameter."""
    for ring in run.rings:
        offered = run.store.number(paths.back(ring.device, "feature-max-indirect-segments"), ring.begin)
        reason = judge.gap(BACKEND, run.begin, ring.begin) if offered is None else None
        _effective(run, judge, ring, offered or 0)
        for half in ring.back.halves if ring.back else ():
            if not half.indirect or half.nr <= (offered or 0):
                judge.holds()
            elif reason:
                judge.undecided(reason)
            else:
                _too_many(judge, ring.device, half, offered)


def _too_many(judge: Judge, device: Device, half: BackHalf, offered: int | None) -> None:
    said = "none" if offered is None else f"at most {offered}"
    judge.breaks(
        "not offered",
        f"indirect request id {half.id} has {half.nr} segments where the backend allows {said}",
        bound=[names.taken(half)],
        because=[f"by feature-max-indirect-segments of device {device.vdev} the backend allows {said}"],
        contradiction=f"R{half.id} is indirect with {half.nr} segments",
    )


def _effective(run: History, judge: Judge, ring: Ring, offered: int) -> None:
    """Linux uses the smaller of the backend's offer and its own parameter, and nothing below 12."""
    own = run.facts.number(run.guest(ring), FRONTEND_MODULE, "max_indirect_segments")
    queued = [half for half in ring.front.halves if half.queue.event == "fe_queue"] if ring.front else []
    if own is None or not queued:
        return
    limit = min(own, offered)
    limit = limit if limit > wire.DIRECT_SEGMENTS else 0
    first = queued[0]
    if first.queue.max_indirect == limit:
        judge.holds()
        return
    if gap := judge.gap(BACKEND, run.begin, ring.begin):
        judge.undecided(gap)
        return
    judge.breaks(
        "effective limit",
        f"frontend allows itself {first.queue.max_indirect} indirect segments instead of {limit}",
        level="LINUX",
        bound=[names.queued(first)],
        because=[
            f"the backend offers {offered} and the frontend's parameter is {own}, at most 11 means none"
        ],
        contradiction=f"the frontend's own limit was {first.queue.max_indirect}",
    )
