"""What the events tell of, put back together: requests, look-ups, mappings and grants of one block ring.

A request has two halves, one as each side saw it, which meet at the same index of the ring.  Events that
were not recorded are None: who judges must ask whether they were lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from blkproof.analysis import wire
from blkproof.traces.events import Event

if TYPE_CHECKING:
    from blkproof.analysis.tree import Tree


class Device(NamedTuple):
    """A virtual block device: its frontend's domid and its virtual device number."""

    domid: int
    vdev: int


class Known(Enum):
    """What the model knows of a grant before the backend looks it up in its persistent tree."""

    FREE = "in the tree and not in use"
    BUSY = "in the tree and in use"
    ABSENT = "not in the tree"
    MAYBE = "maybe purged from the tree"
    UNKNOWN = "unknown"


class Seen(NamedTuple):
    """What the model knew of one grant at some moment, kept as it was then.

    ``since`` are the ticks from which it is known; ``event`` is that by which it is, for a grant in the tree.
    """

    known: Known
    gref: int
    since: int
    event: Event | None = None
    handle: int | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """One grant in the backend's persistent tree.

    ``since`` is the event from which its state is known, ``holder`` the request that uses it.
    """

    gref: int
    handle: int
    mapping: Mapping | None
    active: bool
    since: Event
    holder: BackHalf | None

    def seen(self, known: Known | None = None) -> Seen:
        """Keep its state, or what else is ``known`` of it, as it is now."""
        now = known or (Known.BUSY if self.active else Known.FREE)
        return Seen(now, self.gref, self.since.tsc, self.since, self.handle)


@dataclass(slots=True, eq=False)
class Mapping:
    """One grant that the backend mapped with success, from the map to its unmap.

    ``entry`` is its place in the persistent tree if it got one, ``again`` tells of the tree's entry of the
    same grant that was free when it was mapped, ``hidden`` tells that its unmap was not fully recorded.
    """

    op: wire.MapOp
    event: Event
    call: MapCall
    entry: Entry | None = None
    again: Seen | None = None
    unmapped: Event | None = None
    hidden: bool = False


@dataclass(slots=True, eq=False)
class Lookup:
    """One look-up in the persistent tree, and what the model knew of the grant before."""

    event: Event
    seen: Seen
    result: Event | None = None

    @property
    def hit(self) -> bool:
        """Tell whether the backend found the grant."""
        return self.result is not None and self.result.pgnt != 0


@dataclass(slots=True, eq=False)
class Adding:
    """A mapped grant is put into the tree; ``twice`` tells of the entry that was there already."""

    event: Event
    call: MapCall | None
    mapping: Mapping | None
    twice: Seen | None
    result: Event | None = None

    @property
    def done(self) -> bool:
        """Tell whether the backend added it."""
        return self.result is not None and self.result.rc == 0


@dataclass(slots=True, eq=False)
class MapCall:
    """One call of the backend's mapping function, for data pages or for indirect pages.

    ``grefs`` are the grants of its pages in their order, as far as they were looked up or mapped.
    """

    start: Event
    half: BackHalf | None
    indirect: bool
    end: Event | None = None
    lookups: list[Lookup] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    failed: list[wire.MapOp] = field(default_factory=list)
    grefs: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class BackHalf:
    """A request as the backend saw it: ``taken`` off the ring, indirect pages ``read``, mapped, answered.

    ``segments`` are what its segments cover of their pages, ``grefs`` all its grants, those of indirect
    pages first; each is None when they were not all seen.  ``parts`` are what was seen of ``segments``.
    ``same_id`` is the unanswered request that had its id when it was taken, ``clashes`` are grants that an
    unanswered request, maybe itself, already used.  ``left_mapped`` and ``left_held`` are what
    it had not given back when it was answered: mappings of its own, and grants of the tree.
    """

    ring: BackRing
    index: int
    id: int
    op: int
    taken: Event
    read: Event | None = None
    parts: dict[int, wire.Extent] = field(default_factory=dict)
    segments: tuple[wire.Extent, ...] | None = None
    grefs: tuple[int, ...] | None = None
    calls: list[MapCall] = field(default_factory=list)
    submit: Event | None = None
    io_ends: list[Event] = field(default_factory=list)
    held: dict[int, Entry] = field(default_factory=dict)
    response: Event | None = None
    same_id: BackHalf | None = None
    clashes: list[tuple[int, BackHalf]] = field(default_factory=list)
    left_mapped: tuple[Mapping, ...] = ()
    left_held: tuple[Seen, ...] = ()

    @property
    def indirect(self) -> bool:
        """Tell whether its segments are in pages of their own."""
        return self.op == wire.INDIRECT and self.has_data

    @property
    def inner_op(self) -> int:
        """The operation proper: what an indirect request wraps."""
        return int(self.taken.indirect_op) if self.indirect else self.op

    @property
    def has_data(self) -> bool:
        """Tell whether it is of a kind that may have segments."""
        return self.taken.event == "be_request"

    @property
    def nr(self) -> int:
        """Segments that it announces."""
        return int(self.taken.indirect_nr if self.indirect else self.taken.nr)

    @property
    def mappings(self) -> list[Mapping]:
        """All mappings that were made for it."""
        return [mapping for call in self.calls for mapping in call.mappings]


@dataclass(slots=True, eq=False)
class Teardown:
    """The backend empties its tree, which held ``size`` grants as far as the events tell."""

    event: Event
    size: int


@dataclass(slots=True, eq=False)
class TreeUnmap:
    """A grant of the tree was unmapped, in the state ``seen``.

    ``due`` tells whether that was to be expected: after a purge, or while the tree is taken down.
    """

    event: Event
    seen: Seen
    due: bool


@dataclass(slots=True, eq=False)
class Unmapping:
    """One unmap operation on a handle of the block backend; ``mapping`` is None when none was open."""

    event: Event
    op: wire.UnmapOp
    mapping: Mapping | None
    before: Mapping | None


@dataclass(slots=True, eq=False)
class BackRing:
    """A ring as the backend saw it, from its first request to the next use of its address.

    ``open`` are its unanswered requests by id, ``using`` the same by the grants that they use.  ``stray``
    are responses to no open request, and ``late_ends`` ends of bios of none that has any, each with the last
    request of that id that was already answered.  ``stopped`` is the end of its thread.
    """

    address: int
    device: Device
    tree: Tree
    halves: list[BackHalf] = field(default_factory=list)
    open: dict[int, BackHalf] = field(default_factory=dict)
    using: dict[int, BackHalf] = field(default_factory=dict)
    responses: list[Event] = field(default_factory=list)
    stray: list[tuple[Event, BackHalf | None]] = field(default_factory=list)
    late_ends: list[tuple[Event, BackHalf | None]] = field(default_factory=list)
    addings: list[Adding] = field(default_factory=list)
    unmaps: list[TreeUnmap] = field(default_factory=list)
    puts: list[tuple[Event, Seen | None]] = field(default_factory=list)
    purges: list[Event] = field(default_factory=list)
    teardowns: list[Teardown] = field(default_factory=list)
    sizes: list[tuple[Event, int]] = field(default_factory=list)
    stopped: Event | None = None


@dataclass(slots=True, eq=False)
class Grant:
    """Access that the frontend gave to a page, from the granting to the return of its reference.

    ``closing`` is the frontend's will to end it for good, which waits while the backend maps the page.
    """

    event: Event
    half: FrontHalf | None
    closing: Event | None = None
    ended: Event | None = None


@dataclass(slots=True, eq=False)
class Ending:
    """The frontend tries to end a grant of a completed request.

    ``freed`` is the return of its reference, without which it failed, once all is ``over``.
    """

    event: Event
    freed: Event | None = None
    over: bool = False


@dataclass(slots=True, eq=False)
class FrontHalf:
    """A request as the frontend saw it: queued, put on the ring with an id, completed.

    ``push`` is None for a discard, which is on the ring as soon as it is queued.  ``grants`` were given for
    it and not kept from earlier requests.  ``segments`` is None when they were not all seen, ``parts`` are
    those of an indirect request that were.  ``granted`` are the grants in force, by the references that it
    puts on the ring.
    """

    ring: FrontRing
    index: int
    queue: Event
    id: int | None = None
    push: Event | None = None
    grants: list[Grant] = field(default_factory=list)
    parts: dict[int, wire.Segment] = field(default_factory=dict)
    segments: tuple[wire.Segment, ...] | None = None
    granted: dict[int, Grant | None] = field(default_factory=dict)
    completion: Event | None = None
    endings: list[Ending] = field(default_factory=list)
    recycled: Event | None = None

    @property
    def sectors(self) -> int:
        """Length that the block layer asked for, in 512-byte sectors."""
        return int(self.queue.bytes) // wire.SECTOR_BYTES

    @property
    def uses(self) -> int:
        """Grants that it has on the ring: one for each segment, and for each indirect page."""
        if self.push is None:
            return 0
        if self.push.op != wire.INDIRECT:
            return int(self.push.nr)
        return int(self.push.indirect_nr) + wire.indirect_pages(self.push.indirect_nr)

    @property
    def grefs(self) -> tuple[int, ...] | None:
        """All its grants in the order in which it took them, an indirect page first; None if not all seen."""
        if self.push is None or self.segments is None:
            return None
        pages = wire.indirect_pages(self.push.indirect_nr) if self.push.op == wire.INDIRECT else 0
        return (*self.push.indirect_gref[:pages], *(segment.gref for segment in self.segments))


@dataclass(slots=True, eq=False)
class FrontRing:
    """A ring as the frontend saw it, from its first request to the next use of its address."""

    address: int
    source: str
    halves: list[FrontHalf] = field(default_factory=list)
    open: dict[int, FrontHalf] = field(default_factory=dict)
    looks: list[Event] = field(default_factory=list)
    vdev: int | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One request, joined from what both sides saw at the same index of the ring."""

    index: int
    front: FrontHalf | None
    back: BackHalf | None


@dataclass(slots=True, eq=False)
class Ring:
    """One shared ring: both sides of it, and its requests in the order of their index.

    ``offers`` tell whether the backend and the frontend offered persistent grants, None when not known.
    """

    device: Device
    front: FrontRing | None
    back: BackRing | None
    requests: tuple[Request, ...]
    offers: tuple[bool | None, bool | None] = (None, None)

    @property
    def persistent(self) -> bool | None:
        """Tell whether both sides had agreed on persistent grants, None when that is not known."""
        if False in self.offers:
            return False
        return None if None in self.offers else True

    @property
    def begin(self) -> int:
        """Ticks of the first event that is known of it."""
        firsts = [side.halves[0] for side in (self.front, self.back) if side and side.halves]
        return min(half.queue.tsc if isinstance(half, FrontHalf) else half.taken.tsc for half in firsts)
