"""Names for the events in an explanation: R7 is request 7 as the backend took it, S7 its response, ..."""

from __future__ import annotations

from blkproof.analysis import wire
from blkproof.analysis.entities import BackHalf, FrontHalf, Mapping
from blkproof.analysis.verdict import Bound
from blkproof.traces.errors import one_line, shown
from blkproof.traces.events import Event


def taken(half: BackHalf, label: str | None = None) -> Bound:
    """Name a request as the backend took it off the ring."""
    inner = f" ({wire.operation(half.inner_op)})" if half.indirect else ""
    what = f"request id {half.id}, {wire.operation(half.op)}{inner}, taken from ring entry {half.index}"
    return Bound.to(label or f"R{half.id}", half.taken, what)


def queued(half: FrontHalf) -> Bound:
    """Name a request as the block layer handed it to the frontend."""
    number = "?" if half.id is None else half.id
    what = (
        f"{half.sectors} sectors from {half.queue.sector}, queued with id {number} at ring entry {half.index}"
    )
    return Bound.to(f"Q{number}", half.queue, what)


def response(event: Event, label: str | None = None) -> Bound:
    """Name a response that the backend writes."""
    what = f"response id {event.id}, {wire.operation(event.op)}, status {event.status}"
    return Bound.to(label or f"S{event.id}", event, what)


def submitted(half: BackHalf) -> Bound:
    """Name the bios of a request; it must have some."""
    assert half.submit is not None
    what = f"the backend submits {half.submit.nbio} bios from sector {half.submit.sector} on"
    return Bound.to(f"B{half.id}", half.submit, what)


def mapped(mapping: Mapping, label: str | None = None) -> Bound:
    """Name the mapping of a grant."""
    op = mapping.op
    what = f"grant {op.gref} mapped with flags {op.flags}, handle {op.handle}"
    return Bound.to(label or f"M{op.gref}", mapping.event, what)


def written(label: str, event: Event) -> Bound:
    """Name a value that a driver wrote to xenstore; a guest may have written anything."""
    return Bound.to(label, event, f"{one_line(event.dir)}/{one_line(event.node)} = {shown(event.value)}")
