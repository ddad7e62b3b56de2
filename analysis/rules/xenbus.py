"""In which order both drivers introduce themselves in xenstore: R1, R2, R3 and R16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blkproof.analysis import names
from blkproof.analysis import store as paths
from blkproof.analysis.entities import Device, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.sessions import (
    CONNECTED,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    STATES,
    State,
    back_states,
    enters,
    front_states,
    guest,
    latest,
    missed,
    missed_of,
)
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import Event

_RING_KEYS = ("ring-page-order", "multi-queue-num-queues", "protocol", "feature-persistent")
_OFFERS = ("feature-max-indirect-segments", "multi-queue-max-queues", "max-ring-page-order")
_DISK = ("sectors", "sector-size", "info")
_FEATURES = ("feature-flush-cache", "feature-barrier", "feature-discard", "feature-persistent")


@rule(
    id="R1",
    level="MUST",
    side="both",
    source='blkif.h "STATE DIAGRAMS"; Linux frontend_changed, blkback_changed',
    obligation="The backend waits in state 2 and connects (4) once the frontend has initialised (3), the "
    "frontend connects (4) once the backend has; who skips 2 or 3 can have no choice of rings.",
    needs={"xs_write"},
    obeys=lambda play: play.connect(),
    breaks=lambda play: play.connect(late={"frontend 3"}),
)
def states_in_order(run: History, judge: Judge) -> None:
    """Follow the states that both sides wrote."""
    for device in run.store.devices:
        back, front = back_states(run, device), front_states(run, device)
        if not (back and front) and enters([*back, *front], CONNECTED):
            judge.undecided(f"only one side of device {device.vdev} of domain {device.domid} wrote its state")
            continue
        backend = _Side("backend", "frontend", INIT_WAIT, front, (INITIALISED, CONNECTED))
        frontend = _Side("frontend", "backend", INITIALISED, back, (CONNECTED,))
        if any(run.store.before(path(device, "state")) for path in (paths.back, paths.front)):
            judge.undecided("the two sides had begun to connect before the recording began")
            continue
        for side, states in ((backend, back), (frontend, front)):
            for state in enters(states, CONNECTED):
                gap = missed(run, judge, device, state.tsc)
                _meets(judge, device, side, state, gap)
                if _chose(run, device, state.tsc):
                    _prepared(judge, device, side, state, gap)


class _Side(NamedTuple):
    """A side, the state in which it prepares, and those of its peer in which it may connect."""

    name: str
    other: str
    prepares: int
    peer: Sequence[State]
    due: tuple[int, ...]


def _meets(judge: Judge, device: Device, side: _Side, state: State, gap: str | None) -> None:
    """Look whether the peer had been where it must have been, since this side's last connection."""
    if any(state.since <= other.tsc <= state.tsc and other.value in side.due for other in side.peer):
        judge.holds()
        return
    if gap:
        judge.undecided(gap)
        return
    there = latest(side.peer, state.tsc)
    judge.breaks(
        f"{side.name} early",
        f"{side.name} of device {device.vdev} connects before its {side.other} was in state {side.due[0]}",
        bound=[names.written("S", state.event), *([names.written("P", there.event)] if there else [])],
        because=[
            f"by S the {side.name} is connected",
            f"P is the last state that the {side.other} had written"
            if there
            else f"the {side.other} had written no state",
        ],
        contradiction=f"the {side.other} was not in state {side.due[0]} ({STATES[side.due[0]]}) before S",
    )


def _prepared(judge: Judge, device: Device, side: _Side, state: State, gap: str | None) -> None:
    """Look whether this side had waited in the state before; only where nothing is chosen it need not."""
    if state.after(side.prepares):
        judge.holds()
        return
    if gap:
        judge.undecided(gap)
        return
    step = f"{side.prepares} ({STATES[side.prepares]})"
    judge.breaks(
        f"{side.name} skips",
        f"{side.name} of device {device.vdev} connects without state {step}, and its ring is no default one",
        bound=[names.written("S", state.event)],
        because=[f"ring-page-order or multi-queue-num-queues of device {device.vdev} is not the default"],
        contradiction=f"S does not follow state {step}",
    )


def _chose(run: History, device: Device, tsc: int) -> bool:
    order = run.store.number(paths.front(device, "ring-page-order"), tsc)
    queues = run.store.number(paths.front(device, "multi-queue-num-queues"), tsc)
    return bool(order) or (queues is not None and queues > 1)


@rule(
    id="R2",
    level="MUST",
    side="frontend",
    source='blkif.h "Frontend XenBus Nodes"; Linux talk_to_blkback, blkfront_connect',
    obligation="The frontend names its rings before it enters state 3, and pushes no request before state 4.",
    needs={"xs_write"},
    also={"fe_queue"},
    obeys=lambda play: play.io(),
    breaks=lambda play: play.connect(late={"feature-persistent"}),
)
def rings_named_first(run: History, judge: Judge) -> None:
    """Look at what the frontend had written at state 3, and at the first request of each ring."""
    for device in run.store.devices:
        states = front_states(run, device)
        for state in enters(states, INITIALISED):
            _complete(run, judge, device, state)
        for key in _RING_KEYS:
            for event in run.store.writes(paths.front(device, key)):
                _in_time(judge, states, event, INITIALISED)
    for ring in run.rings:
        if ring.front is not None:
            _first_request(run, judge, ring)


def _complete(run: History, judge: Judge, device: Device, state: State) -> None:
    queues = run.store.number(paths.front(device, "multi-queue-num-queues"), state.tsc) or 1
    for place in [""] if queues == 1 else [f"queue-{number}/" for number in range(min(queues, 256))]:
        refs = (f"{place}ring-ref", f"{place}ring-ref0")
        if not any(run.store.at(paths.front(device, key), state.tsc) for key in refs):
            _absent(run, judge, device, state, refs[0])
        elif run.store.at(paths.front(device, f"{place}event-channel"), state.tsc) is None:
            _absent(run, judge, device, state, f"{place}event-channel")
        else:
            judge.holds()


def _absent(run: History, judge: Judge, device: Device, state: State, key: str) -> None:
    if gap := missed_of(judge, guest(run, device), run, state.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "absent",
        f"frontend of device {device.vdev} enters state 3 without {key}",
        bound=[names.written("S", state.event)],
        because=["at state 3 the backend reads where the rings are"],
        contradiction=f"{key} was not written before S",
    )


def _in_time(judge: Judge, states: Sequence[State], event: Event, due: int) -> None:
    """Look whether a key was written on the way to state ``due``, or later, when nobody reads it any more."""
    before = latest(states, event.tsc)
    after = next((state for state in states if state.tsc > event.tsc), None)
    if before is None or before.value not in (due, CONNECTED):
        judge.holds()
    elif after is None:
        judge.undecided("the recording ended before it was clear what a key was written for")
    elif after.value in (INITIALISING, INIT_WAIT, INITIALISED):
        # The toolstack has set this side back to its first state, which is not recorded.
        judge.holds()
    elif gap := judge.gap(event.source, before.tsc, after.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "late",
            f"{event.node} is written only after its writer has entered state {before.value}",
            bound=[names.written("S", before.event), names.written("K", event)],
            because=[f"the other side may read {event.node} as soon as S is written"],
            contradiction="S < K",
        )


def _first_request(run: History, judge: Judge, ring: Ring) -> None:
    assert ring.front is not None
    first = ring.front.halves[0].queue
    state = run.store.number(paths.front(ring.device, "state"), first.tsc)
    if state == CONNECTED:
        judge.holds(len(ring.front.halves))
        return
    gap = missed_of(judge, ring.front.source, run, first.tsc)
    if ring.device not in run.store.devices:
        gap = gap or "the device that a ring belongs to is not known"
    elif ring.front.halves[0].index:
        gap = gap or "the frontend had connected before the recording began"
    if gap:
        judge.undecided(gap)
        return
    judge.breaks(
        "early request",
        f"frontend of device {ring.device.vdev} queues a request before it is connected",
        bound=[names.queued(ring.front.halves[0])],
        because=[f"its state was {'not written yet' if state is None else state} then"],
        contradiction="it had not entered state 4",
    )


@rule(
    id="R3",
    level="MUST",
    side="backend",
    source='blkif.h "Backend XenBus Nodes"; Linux xen_blkbk_probe, connect, commit 5a7058450cbc',
    obligation="The backend offers rings and indirect segments before state 2, and describes the disk before "
    "state 4, all at once.",
    needs={"xs_write"},
    obeys=lambda play: play.connect(),
    breaks=lambda play: play.connect(late={"feature-max-indirect-segments"}),
)
def disk_described_first(run: History, judge: Judge) -> None:
    """Look at what the backend had written at states 2 and 4."""
    for device in run.store.devices:
        states = back_states(run, device)
        for key in _OFFERS:
            for event in run.store.writes(paths.back(device, key)):
                _in_time(judge, states, event, INIT_WAIT)
        for state in enters(states, CONNECTED):
            _described(run, judge, device, state)
        for key in _FEATURES:
            for event in run.store.writes(paths.back(device, key)):
                if event.value == "0" and key != "feature-persistent":
                    # What turned out not to work may be taken back at any time.
                    judge.holds()
                else:
                    _in_time(judge, states, event, CONNECTED)


def _described(run: History, judge: Judge, device: Device, state: State) -> None:
    writes: list[Event] = []
    for key in _DISK:
        found = [e for e in run.store.writes(paths.back(device, key)) if state.since <= e.tsc <= state.tsc]
        if found:
            judge.holds()
            writes.append(found[-1])
        elif run.store.before(paths.back(device, key)) is not None:
            judge.undecided("the backend described its disk before the recording began")
        elif gap := missed_of(judge, BACKEND, run, state.tsc):
            judge.undecided(gap)
        else:
            judge.breaks(
                "undescribed",
                f"backend of device {device.vdev} connects without {key}",
                bound=[names.written("S", state.event)],
                because=["at state 4 the frontend reads what the disk is"],
                contradiction=f"{key} was not written before S",
            )
    apart = len({event.xbt for event in writes}) > 1 or any(event.xbt == 0 for event in writes)
    if apart and not missed_of(judge, BACKEND, run, state.tsc):
        judge.breaks(
            "apart",
            f"backend of device {device.vdev} describes its disk in several steps",
            level="SHOULD",
            bound=[names.written(f"K{number}", event) for number, event in enumerate(writes, 1)],
            because=["who reads in between sees a disk that is half described"],
            contradiction="they are not of one transaction",
        )


@rule(
    id="R16",
    level="MUST",
    side="both",
    source='blkif.h "sectors"; Linux xen_vbd_resize, blkfront_connect',
    obligation="A disk's new size is written together with state 4 again, and the frontend stays connected.",
    needs={"xs_write"},
    obeys=lambda play: (play.io(), play.resize(4096), play.io()),
    breaks=lambda play: (play.io(), play.resize(4096, skip={"backend 4"})),
)
def resized_in_place(run: History, judge: Judge) -> None:
    """Look at every size that was written while the backend was connected."""
    for device in run.store.devices:
        back = back_states(run, device)
        for event in run.store.writes(paths.back(device, "sectors")):
            before = latest(back, event.tsc)
            if before is not None and before.value == CONNECTED:
                _resized(run, judge, device, event, back)


def _resized(run: History, judge: Judge, device: Device, event: Event, back: Sequence[State]) -> None:
    told = next((state for state in back if state.tsc > event.tsc), None)
    if told is not None and told.value == INIT_WAIT:
        # A new disk in place of one that the toolstack had killed: no resize.
        return
    if told is None or told.value != CONNECTED or told.event.xbt != event.xbt:
        if gap := judge.gap(BACKEND, event.tsc, told.tsc if told else run.end):
            judge.undecided(gap)
            return
        judge.breaks(
            "untold",
            f"backend gives device {device.vdev} another size and does not tell",
            bound=[names.written("K", event)],
            because=["a frontend looks at the size again when it is told state 4 once more"],
            contradiction="state 4 is not written in the same transaction as K",
        )
        return
    _stays(run, judge, device, told)


def _stays(run: History, judge: Judge, device: Device, told: State) -> None:
    after = next((state for state in front_states(run, device) if state.tsc > told.tsc), None)
    closing = next((s for s in back_states(run, device) if s.tsc > told.tsc and s.value != CONNECTED), None)
    reconnects = after is not None and after.value in (INITIALISING, INIT_WAIT, INITIALISED)
    if after is None or not reconnects or (closing is not None and closing.tsc < after.tsc):
        judge.holds()
        return
    if gap := missed(run, judge, device, after.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "reconnects",
        f"frontend of device {device.vdev} connects again because the disk has another size",
        bound=[
            names.written("T", told.event),
            Bound.to("S", after.event, f"frontend enters state {after.value}"),
        ],
        because=["T only says that the size is another one, and the backend did not close the device"],
        contradiction="the frontend left state 4 by S",
    )
