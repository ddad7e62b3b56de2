"""Which rings the frontend chooses of those that the backend offers, and how it names them: R4 to R8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from blkproof.analysis import names
from blkproof.analysis import store as paths
from blkproof.analysis.entities import Device
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.sessions import (
    CONNECTED,
    INITIALISED,
    State,
    back_states,
    enters,
    front_states,
    guest,
    missed,
    missed_of,
)
from blkproof.analysis.verdict import Bound
from blkproof.traces.errors import one_line, shown
from blkproof.traces.events import Event

_LARGEST_ORDER = 4
_MOST_QUEUES = 256
_ABI = "x86_64-abi"
"""That of all guests whose trace can be read."""


class _Choice(NamedTuple):
    """What the frontend had chosen when it entered state 3, and the keys that it had written for that."""

    device: Device
    state: State
    order: int
    pages: int
    queues: int
    written: dict[str, Event]


class _Limit(NamedTuple):
    """A key of the frontend that the backend limits; without either key it is ``default``, the least, too."""

    key: str
    offer: str
    default: int


_ORDER = _Limit("ring-page-order", "max-ring-page-order", 0)
_QUEUES = _Limit("multi-queue-num-queues", "multi-queue-max-queues", 1)


def _choices(run: History) -> list[_Choice]:
    found = []
    for device in run.store.devices:
        for state in enters(front_states(run, device), INITIALISED):
            # The toolstack removes the keys of a disk that is detached, which is not recorded.
            written = {
                key: event
                for key, event in run.store.below(paths.front(device, ""))
                if state.since < event.tsc <= state.tsc
            }
            order, queues = _number(written, _ORDER), _number(written, _QUEUES)
            # A guest may write any number; what is too large or none at all is judged by R4 and R7.
            order = order if order is not None and order <= _LARGEST_ORDER else 0
            queues = queues if queues is not None and queues <= _MOST_QUEUES else 1
            found.append(_Choice(device, state, order, 1 << order, max(1, queues), written))
    return found


def _number(written: Mapping[str, Event], limit: _Limit) -> int | None:
    """Return the number that a key held, its default if it was not there, and None if it is no number."""
    event = written.get(limit.key)
    if event is None:
        return limit.default
    return int(event.value[:20]) if event.value.isascii() and event.value.isdecimal() else None


@rule(
    id="R4",
    level="MUST",
    side="frontend",
    source='blkif.h "max-ring-page-order", "ring-page-order"; Linux talk_to_blkback, connect_ring',
    obligation="A ring has at most 2 to the max-ring-page-order pages, and a backend refuses a larger one.",
    needs={"xs_write"},
    obeys=lambda play: play.set(order=2, max_order=4, nr_ents=128).io(),
    breaks=lambda play: play.set(order=1, max_order=0, nr_ents=64).connect(),
)
def ring_not_too_large(run: History, judge: Judge) -> None:
    """Compare ring-page-order with what the backend offered when the frontend entered state 3."""
    for choice in _choices(run):
        _limited(run, judge, choice, _ORDER)


def _limited(run: History, judge: Judge, choice: _Choice, limit: _Limit) -> None:
    device, state = choice.device, choice.state
    write = choice.written.get(limit.key)
    offer = run.store.number(paths.back(device, limit.offer), state.tsc)
    most = limit.default if offer is None else offer
    number = _number(choice.written, limit)
    if number is not None and limit.default <= number <= most:
        judge.holds()
        return
    if gap := missed(run, judge, device, state.tsc):
        judge.undecided(gap)
        return
    value = shown(write.value) if write else ""
    connected = _connected(run, choice)
    judge.breaks(
        "accepted" if connected else "chosen",
        f"frontend of device {device.vdev} chooses {limit.key} = {value} of {limit.default} to {most}"
        + (", and the backend accepts it" if connected else ""),
        bound=[
            *([names.written("K", write)] if write else []),
            names.written("S", state.event),
            *([names.written("C", connected.event)] if connected else []),
        ],
        because=[
            f"{limit.offer} was {'not there' if offer is None else offer}",
            "S asks the backend to read K",
        ],
        contradiction=f"K is {value}",
    )


def _connected(run: History, choice: _Choice) -> State | None:
    """Return the state by which the backend accepted what the frontend chose."""
    back = back_states(run, choice.device)
    return next((s for s in back if s.tsc > choice.state.tsc and s.value == CONNECTED), None)


@rule(
    id="R5",
    level="MUST",
    side="both",
    source="blkif.h note 6; Linux write_per_ring_nodes, read_per_ring_refs, commit d75e7f63b7c9",
    obligation="A ring of one page is named by ring-ref, a larger one by ring-ref0 and so on, each page "
    "once, and the backend maps those.",
    needs={"xs_write"},
    also={"gt_map_ring"},
    obeys=lambda play: play.set(order=1, max_order=4, nr_ents=64).io(),
    breaks=lambda play: play.set(order=1, max_order=4, nr_ents=64).connect(skip={"ring-ref1"}),
)
def ring_pages_named(run: History, judge: Judge) -> None:
    """Look at the keys of each ring's pages, and at the pages that the backend maps for it."""
    maps = list(run.table.rows(["gt_map_ring"]))
    for choice in _choices(run):
        first = [_named(run, judge, choice, place) for place in _places(choice)]
        for event in maps:
            if _maps_for(run, choice, event):
                _mapped(run, judge, choice, event, {ref for ref in first if ref is not None})
        if None not in first:
            _read(run, judge, choice)


def _places(choice: _Choice) -> list[str]:
    return [""] if choice.queues == 1 else [f"queue-{number}/" for number in range(choice.queues)]


def _named(run: History, judge: Judge, choice: _Choice, place: str) -> int | None:
    """Check the names of one ring's pages; return the grant of its first page."""
    device, tsc = choice.device, choice.state.tsc
    told = _ORDER.key in choice.written
    due = [f"{place}ring-ref{page}" for page in range(choice.pages)] if told else [f"{place}ring-ref"]
    allowed = {*due, *([] if choice.order else [f"{place}ring-ref"])}
    refs = [run.store.number(paths.front(device, key), tsc) for key in due]
    wrong = next((key for key, ref in zip(due, refs, strict=True) if ref is None), None)
    extra = next(
        (key for key in choice.written if key.startswith(f"{place}ring-ref") and key not in allowed), None
    )
    if wrong is None and extra is None and len(set(refs)) == len(refs):
        judge.holds(len(refs))
        return refs[0]
    if gap := missed_of(judge, guest(run, device), run, tsc):
        judge.undecided(gap)
        return None
    what = f"without {wrong}" if wrong else f"with {one_line(extra)}" if extra else "with one page twice"
    judge.breaks(
        "named",
        f"frontend of device {device.vdev} names the {choice.pages} pages of its ring {what}",
        # By blkif.h order 0 needs no number; Linux's backend reads ring-ref0 as soon as an order is there.
        level=None if choice.order or not told else "LINUX",
        bound=[
            *(
                names.written(key.removeprefix(place), event)
                for key, event in choice.written.items()
                if key in due
            ),
            names.written("S", choice.state.event),
        ],
        because=[
            f"a ring of order {choice.order} has {choice.pages} pages, and their names are {', '.join(due)}"
        ],
        contradiction=f"at S it had named them {what}",
    )
    return None


def _maps_for(run: History, choice: _Choice, event: Event) -> bool:
    if (
        event.node != f"backend/vbd/{choice.device.domid}/{choice.device.vdev}"
        or event.tsc < choice.state.tsc
    ):
        return False
    after = (s for s in front_states(run, choice.device) if s.tsc > choice.state.tsc and s.value != CONNECTED)
    end = next(after, None)
    return end is None or event.tsc < end.tsc


def _mapped(run: History, judge: Judge, choice: _Choice, event: Event, first: set[int]) -> None:
    if not first or (event.n == choice.pages and event.gref in first):
        judge.holds()
        return
    if gap := missed_of(judge, guest(run, choice.device), run, event.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "mapped",
        f"backend maps a ring of {event.n} pages from grant {event.gref} on, which is not what was named",
        bound=[
            names.written("S", choice.state.event),
            Bound.to("M", event, f"the backend maps {event.n} pages, first grant {event.gref}"),
        ],
        because=[f"at S rings of {choice.pages} pages were named, whose first grants are {sorted(first)}"],
        contradiction=f"M maps {event.n} pages from grant {event.gref} on",
    )


def _read(run: History, judge: Judge, choice: _Choice) -> None:
    """Look for a backend that complains of a missing key, where the frontend wrote another as it should."""
    device = choice.device
    complaints = f"/local/domain/0/error/backend/vbd/{device.domid}/{device.vdev}/error"
    after = (s for s in front_states(run, device) if s.tsc > choice.state.tsc and s.value != CONNECTED)
    end = next(after, None)
    for event in run.store.writes(complaints):
        place, _, key = event.value.rpartition("/")
        if not key.startswith("ring-ref") or not place.endswith(paths.front(device, "").rstrip("/")):
            continue
        if not choice.state.tsc < event.tsc or (end is not None and end.tsc < event.tsc):
            continue
        due = "ring-ref0" if choice.order or _ORDER.key in choice.written else "ring-ref"
        if key == due or missed_of(judge, guest(run, device), run, event.tsc):
            continue
        judge.breaks(
            "read",
            f"backend reads {one_line(key)} of a ring of device {device.vdev} that is named by {due}",
            bound=[names.written("S", choice.state.event), names.written("E", event)],
            because=[f"a ring of {choice.pages} pages is named from {due} on, and so it is at S"],
            contradiction=f"by E the backend looks for {one_line(key)}",
        )


@rule(
    id="R6",
    level="SHOULD",
    side="both",
    source='blkif.h note 3, "max-ring-pages", "num-ring-pages"',
    obligation="A ring of more than one page is announced by the older keys in pages, too.",
    needs={"xs_write"},
    obeys=lambda play: play.connect(),
    breaks=lambda play: play.set(order=1, max_order=4, nr_ents=64).connect(skip={"num-ring-pages"}),
)
def older_keys_too(run: History, judge: Judge) -> None:
    """Look for max-ring-pages and num-ring-pages; Linux writes neither, so this is but a remark."""
    for choice in _choices(run):
        for side, path, key in (
            ("backend", paths.back, "max-ring-pages"),
            ("frontend", paths.front, "num-ring-pages"),
        ):
            if not choice.order or run.store.at(path(choice.device, key), choice.state.tsc) is not None:
                judge.holds()
            elif gap := missed(run, judge, choice.device, choice.state.tsc):
                judge.undecided(gap)
            else:
                judge.breaks(
                    key,
                    f"{side} of device {choice.device.vdev} does not write {key}",
                    level="QUAL",
                    bound=[names.written("S", choice.state.event)],
                    because=[f"the ring has {choice.pages} pages, and an old peer knows no other key"],
                    contradiction=f"{key} was not there at S",
                )


@rule(
    id="R7",
    level="MUST",
    side="frontend",
    source='blkif.h "multi-queue-max-queues", "multi-queue-num-queues"; Linux negotiate_mq, connect_ring',
    obligation="There are 1 to multi-queue-max-queues rings; several are named in queue-0 and so on, one "
    "alone is not.",
    needs={"xs_write"},
    obeys=lambda play: play.set(queues=2, max_queues=4).io(),
    breaks=lambda play: play.set(queues=2, max_queues=1).connect(),
)
def queues_as_offered(run: History, judge: Judge) -> None:
    """Compare multi-queue-num-queues with the backend's limit, and look where rings are named."""
    for choice in _choices(run):
        _limited(run, judge, choice, _QUEUES)
        for key, event in choice.written.items():
            place, _, leaf = key.rpartition("/")
            if leaf.startswith("ring-ref") or leaf == "event-channel":
                _in_place(run, judge, choice, place, event)


def _in_place(run: History, judge: Judge, choice: _Choice, place: str, event: Event) -> None:
    if f"{place}/".lstrip("/") in _places(choice):
        judge.holds()
        return
    if gap := missed_of(judge, event.source, run, choice.state.tsc):
        judge.undecided(gap)
        return
    where = "in their directories" if choice.queues > 1 else "directly"
    judge.breaks(
        "place",
        f"frontend of device {choice.device.vdev} names a ring in {one_line(place) or 'its own directory'}",
        bound=[names.written("K", event), names.written("S", choice.state.event)],
        because=[f"{choice.queues} rings were chosen, so that they have to be named {where}"],
        contradiction=f"K is in {one_line(event.dir)}",
    )


@rule(
    id="R8",
    level="MUST",
    side="frontend",
    source='blkif.h "protocol"; Linux talk_to_blkback, BLKIF_PROTOCOL_DEFAULT',
    obligation="The frontend names the ABI that its ring really has; without a name Linux assumes 32 bits.",
    needs={"xs_write"},
    obeys=lambda play: play.connect(),
    breaks=lambda play: play.set(protocol="x86_32-abi").connect(),
)
def abi_named(run: History, judge: Judge) -> None:
    """Look at the protocol that stood in xenstore at state 3."""
    for choice in _choices(run):
        write = run.store.at(paths.front(choice.device, "protocol"), choice.state.tsc)
        if write is not None and write.value == _ABI:
            judge.holds()
            continue
        if gap := missed_of(judge, guest(run, choice.device), run, choice.state.tsc):
            judge.undecided(gap)
            continue
        named = f"protocol = {shown(write.value)}" if write else "no protocol"
        judge.breaks(
            "protocol",
            f"frontend of device {choice.device.vdev} names {named}",
            bound=[
                *([names.written("K", write.event)] if write and write.event else []),
                names.written("S", choice.state.event),
            ],
            because=[f"the trace of the frontend's kernel is one of x86-64, so its ABI is {_ABI}"],
            contradiction=f"at S there was {named}",
        )
