"""How a device was connected: the states that its two drivers wrote to xenstore, and the keys in between.

What the toolstack writes is not recorded (it sets the first state of both sides, and any when it kills a
device), so a state may follow on any other; what a driver must have done before it enters one can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blkproof.analysis import store as paths
from blkproof.analysis.entities import Device
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.traces.events import Event

INITIALISING: Final = 1
INIT_WAIT: Final = 2
INITIALISED: Final = 3
CONNECTED: Final = 4
CLOSING: Final = 5
CLOSED: Final = 6
STATES: Final = {
    INITIALISING: "Initialising",
    INIT_WAIT: "InitWait",
    INITIALISED: "Initialised",
    CONNECTED: "Connected",
    CLOSING: "Closing",
    CLOSED: "Closed",
}
"""States of XenBus that a block device knows."""

_WRITES: Final = frozenset({"xs_write"})


@dataclass(frozen=True, slots=True)
class State:
    """One state that a driver wrote, after ``before``, which is None if it had written none."""

    value: int
    event: Event
    before: State | None

    @property
    def tsc(self) -> int:
        """Ticks at which it was written."""
        return self.event.tsc

    @property
    def since(self) -> int:
        """Ticks from which on keys belong to the connection that this state is a step of."""
        state = self.before
        while state is not None and state.value not in (CONNECTED, CLOSING, CLOSED):
            state = state.before
        return state.tsc if state is not None else 0

    def after(self, value: int) -> bool:
        """Tell whether the driver wrote ``value`` on the way to this state."""
        state = self.before
        while state is not None and state.value not in (CONNECTED, CLOSING, CLOSED):
            if state.value == value:
                return True
            state = state.before
        return False


def _states(run: History, path: str) -> Iterator[State]:
    before = None
    for event in run.store.writes(path):
        if event.value.isascii() and event.value.isdecimal():
            before = State(int(event.value[:2]), event, before)
            yield before


def back_states(run: History, device: Device) -> list[State]:
    """Return the states that the backend wrote, in their order."""
    return list(_states(run, paths.back(device, "state")))


def front_states(run: History, device: Device) -> list[State]:
    """Return the states that the frontend wrote, in their order."""
    return list(_states(run, paths.front(device, "state")))


def enters(states: Sequence[State], value: int) -> list[State]:
    """Return those of ``states`` by which a driver enters ``value``, not those that repeat it."""
    return [s for s in states if s.value == value and (s.before is None or s.before.value != value)]


def latest(states: Sequence[State], tsc: int) -> State | None:
    """Return the state that was in force at ``tsc`` (ticks), as far as a driver wrote it."""
    return next((state for state in reversed(states) if state.tsc <= tsc), None)


def missed(run: History, judge: Judge, device: Device, tsc: int) -> str | None:
    """Say why a key of either side may have been written before ``tsc`` without being seen, or None."""
    return missed_of(judge, BACKEND, run, tsc) or missed_of(judge, guest(run, device), run, tsc)


def missed_of(judge: Judge, source: str, run: History, tsc: int) -> str | None:
    """Say why a key that ``source`` wrote before ``tsc`` may not have been seen, or None."""
    if source not in (BACKEND, *run.facts.domids):
        return f"{source} left no trace"
    return judge.gap(source, run.begin, tsc, _WRITES)


def guest(run: History, device: Device) -> str:
    """Return the source that is the frontend of ``device``."""
    return run.facts.guest(device.domid) or f"domain {device.domid}"
