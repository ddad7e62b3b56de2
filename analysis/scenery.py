"""What a play moves: a request on its way, and the indices of a ring with their event indices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from blkproof.analysis import wire
from blkproof.analysis.handshake import VDEV
from blkproof.traces.events import PUSHED_IN


@dataclass(slots=True)
class Io:
    """One request on its way: where it stands, what it moves, and what is mapped for it."""

    id: int
    index: int
    op: int
    sector: int
    segments: tuple[wire.Segment, ...]
    pages: tuple[int, ...] = ()
    mapped: list[wire.MapOp] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    status: int = wire.OKAY
    failed: bool = False

    @property
    def indirect(self) -> bool:
        """Tell whether it needs an indirect request."""
        return len(self.segments) > wire.DIRECT_SEGMENTS

    def request(self) -> dict[str, Any]:
        """Return its fields on the ring."""
        head: dict[str, Any] = {"id": self.id, "sector": self.sector}
        if self.indirect:
            inside = {"indirect_op": self.op, "indirect_nr": len(self.segments), "indirect_gref": self.pages}
            return {**head, "op": wire.INDIRECT, "indirect_handle": VDEV, **inside}
        words = [_word(segment) for segment in self.segments]
        return {**head, "op": self.op, "handle": VDEV, "nr": len(self.segments), "seg": words}

    def pushed(self) -> dict[str, list[int]]:
        """Return what each event of the frontend holds of its indirect page, if it has one."""
        words = [_word(segment) for segment in self.segments] if self.indirect else []
        parts = {event: words[held.start : held.stop] for event, held in PUSHED_IN.items()}
        return {event: part for event, part in parts.items() if part}

    @property
    def sectors(self) -> int:
        """Length in 512-byte sectors."""
        return sum(segment.extent.sectors for segment in self.segments)


@dataclass(slots=True)
class Indices:
    """All indices of a ring: producers, consumers, and from where on each side wants to be notified."""

    nr_ents: int = 32
    req_prod: int = 0
    req_cons: int = 0
    req_event: int = 1
    rsp_prod: int = 0
    rsp_cons: int = 0
    rsp_event: int = 1

    def push(self) -> bool:
        """Let the frontend push a request; tell whether it has to notify the backend."""
        self.req_prod += 1
        return self.req_event == self.req_prod

    def take(self) -> None:
        """Let the backend take a request."""
        self.req_cons += 1

    def rest(self) -> bool:
        """Let the backend ask for a notification if nothing is left to be taken; tell whether it did."""
        if self.req_cons == self.req_prod:
            self.req_event = self.req_cons + 1
        return self.req_cons == self.req_prod

    def respond(self) -> bool:
        """Let the backend push a response; tell whether it has to notify the frontend."""
        self.rsp_prod += 1
        return self.rsp_event == self.rsp_prod

    def complete(self) -> None:
        """Let the frontend take a response, and ask for a notification if none is left."""
        self.rsp_cons += 1
        if self.rsp_cons == self.rsp_prod:
            self.rsp_event = self.rsp_cons + 1

    def back(self) -> dict[str, int]:
        """Return the fields of an event of the backend."""
        own = {"req_cons": self.req_cons, "rsp_prod_pvt": self.rsp_prod, "nr_ents": self.nr_ents}
        return own | self._shared()

    def front(self, pushed: int = 0) -> dict[str, int]:
        """Return the fields of an event of the frontend, the last ``pushed`` requests not yet shared."""
        own = {"req_prod_pvt": self.req_prod, "rsp_cons": self.rsp_cons, "nr_ents": self.nr_ents}
        return own | self._shared() | {"s_req_prod": self.req_prod - pushed}

    def _shared(self) -> dict[str, int]:
        return {
            "s_req_prod": self.req_prod,
            "s_req_event": self.req_event,
            "s_rsp_prod": self.rsp_prod,
            "s_rsp_event": self.rsp_event,
        }


def _word(segment: wire.Segment) -> int:
    return segment.gref | segment.first << 32 | segment.last << 40


def map_words(op: wire.MapOp) -> tuple[int, int, int, int]:
    """Return the words of a map operation."""
    tail = op.dom | (op.status & 0xFFFF) << 16 | op.handle << 32
    return op.host, op.flags | op.gref << 32, tail, 0
