"""Whether each request is well-formed: R29 to R32."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, FrontHalf, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import front_unseen, unseen

_MAY_BE_EMPTY = {wire.BARRIER, wire.FLUSH}
_READ_ONLY_INFO = 4
_MOST_PAGES = 8


@rule(
    id="R29",
    level="MUST",
    side="frontend",
    source="blkif.h struct blkif_request; Linux dispatch_rw_block_io",
    obligation="A direct request has 1 to 11 segments, or none if it is a flush or a barrier; the backend "
    "refuses any other.",
    needs={"be_request", "be_response"},
    obeys=lambda play: (play.io(wire.FLUSH, nr=0), play.io(wire.WRITE, nr=11)),
    breaks=lambda play: play.io(wire.WRITE, nr=2, be_request={"nr": 12}),
)
def direct_count(run: History, judge: Judge) -> None:
    """Count the segments that direct requests announce."""
    for half in _halves(run):
        if half.indirect:
            continue
        least = 0 if half.op in _MAY_BE_EMPTY else 1
        if least <= half.nr <= wire.DIRECT_SEGMENTS:
            judge.holds()
            continue
        accepted = half.response is not None and half.response.status == wire.OKAY
        judge.breaks(
            "accepted" if accepted else "count",
            f"direct {wire.operation(half.op)} id {half.id} announces {half.nr} segments"
            + (", and the backend accepts it" if accepted else ""),
            bound=[names.taken(half)],
            because=[f"a {wire.operation(half.op)} on the ring itself has {least} to 11 segments"],
            contradiction=f"R{half.id} announces {half.nr}",
        )


@rule(
    id="R30",
    level="MUST",
    side="frontend",
    source="blkif.h struct blkif_request_segment; Linux dispatch_rw_block_io, xen_blkbk_parse_indirect",
    obligation="Every segment lies in its page: first_sect <= last_sect <= 7.",
    needs={"be_request", "be_indirect", "be_response"},
    also={"be_indirect_more", "be_indirect_rest"},
    obeys=lambda play: (play.io(wire.READ), play.io(wire.WRITE, nr=20), play.io(wire.WRITE, nr=256)),
    breaks=lambda play: play.io(wire.WRITE, segments=[wire.Segment(100, 0, 8), wire.Segment(101, 0, 7)]),
)
def segment_in_page(run: History, judge: Judge) -> None:
    """Look at every segment that the backend read."""
    for half in _halves(run):
        if half.segments is None:
            judge.undecided(unseen(run, judge, half), max(1, half.nr))
            continue
        for number, segment in enumerate(half.segments):
            if segment.first <= segment.last <= wire.LAST_SECTOR:
                judge.holds()
                continue
            judge.breaks(
                "outside",
                f"segment {number} of request id {half.id} covers sectors {segment.first} to {segment.last} "
                "of its page",
                bound=[names.taken(half)],
                because=["a granted page has the sectors 0 to 7 of 512 bytes"],
                contradiction=f"segment {number} of R{half.id} is {segment.first} to {segment.last}",
            )


@rule(
    id="R31",
    level="MUST",
    side="frontend",
    source="blkif.h struct blkif_request; Linux xen_vbd_translate",
    obligation="The segments of a request add up to the length that was asked for, inside the disk, and only "
    "reads go to a read-only disk.",
    needs={"be_request", "be_indirect", "be_response"},
    also={"be_indirect_more", "be_indirect_rest", "fe_queue", "fe_push", "fe_discard", "xs_write"},
    obeys=lambda play: (play.io(wire.READ), play.io(wire.WRITE, nr=200), play.io(wire.FLUSH, nr=0)),
    breaks=lambda play: play.io(wire.WRITE, nr=3, segments=[wire.Segment(100, 0, 7)]),
)
def length_and_place(run: History, judge: Judge) -> None:
    """Compare what the backend read with what the frontend's block layer asked for."""
    for ring in run.rings:
        for request in ring.requests:
            half, front = request.back, request.front
            if half is None or half.taken.event == "be_other":
                continue
            sectors = _length(half)
            if sectors is None:
                judge.undecided(unseen(run, judge, half))
            elif front is None:
                judge.undecided(front_unseen(run, judge, ring, half))
            elif (sectors, half.taken.sector) != (front.sectors, front.queue.sector):
                _not_as_asked(judge, half, front, sectors)
            else:
                _inside(run, judge, ring, half, sectors)


def _length(half: BackHalf) -> int | None:
    if half.taken.event == "be_discard":
        return int(half.taken.nr_sectors)
    return None if half.segments is None else sum(segment.sectors for segment in half.segments)


def _not_as_asked(judge: Judge, half: BackHalf, front: FrontHalf, sectors: int) -> None:
    queue = names.queued(front)
    judge.breaks(
        "length",
        f"request id {half.id} moves {sectors} sectors from {half.taken.sector}, "
        f"where {front.sectors} from {front.queue.sector} were asked for",
        bound=[queue, names.taken(half)],
        because=[
            f"{queue.label} and R{half.id} are one request, because both stand at ring entry {half.index}",
            f"{queue.label} asks for {front.sectors} sectors from {front.queue.sector}",
        ],
        contradiction=f"what the backend read in R{half.id} are {sectors} sectors from {half.taken.sector}",
    )


def _inside(run: History, judge: Judge, ring: Ring, half: BackHalf, sectors: int) -> None:
    tsc = half.taken.tsc
    capacity = run.store.number(paths.back(ring.device, "sectors"), tsc)
    info = run.store.number(paths.back(ring.device, "info"), tsc)
    if capacity is None or info is None:
        judge.undecided("the size and mode of the disk are not known from xenstore")
    elif sectors and half.taken.sector + sectors > capacity:
        judge.breaks(
            "beyond the end",
            f"request id {half.id} ends at sector {half.taken.sector + sectors} of {capacity}",
            bound=[names.taken(half)],
            because=[f"the backend said that the disk has {capacity} sectors"],
            contradiction=f"R{half.id} moves {sectors} sectors from {half.taken.sector}",
        )
    elif info & _READ_ONLY_INFO and half.inner_op != wire.READ:
        judge.breaks(
            "read-only",
            f"request id {half.id} is a {wire.operation(half.inner_op)} to a read-only disk",
            bound=[names.taken(half)],
            because=["the backend said in info that the disk is read-only"],
            contradiction=f"R{half.id} is no read",
        )
    else:
        judge.holds()


@rule(
    id="R32",
    level="MUST",
    side="frontend",
    source="blkif.h struct blkif_request_indirect; Linux xen_blkbk_parse_indirect",
    obligation="An indirect request wraps a read or a write, and 512 of its segments share an indirect page, "
    "of which there are at most 8.",
    needs={"be_request", "be_indirect", "be_map", "be_map_ret", "be_response"},
    also={"fe_queue", "fe_push"},
    obeys=lambda play: play.io(wire.WRITE, nr=20),
    breaks=lambda play: play.io(wire.WRITE, nr=20, be_request={"indirect_op": wire.FLUSH}),
)
def indirect_form(run: History, judge: Judge) -> None:
    """Look at the head and the pages of every indirect request."""
    for ring in run.rings:
        for request in ring.requests:
            half = request.back
            if half is None or not half.indirect:
                continue
            wrong = _wrong_head(half)
            if wrong is None and half.response is not None:
                end = half.response.tsc
                gap = judge.gap(BACKEND, half.taken.tsc, end) or judge.gap(run.guest(ring), run.begin, end)
                if gap:
                    judge.undecided(gap)
                    continue
                wrong = _wrong_pages(half, request.front)
            if wrong is None:
                judge.holds()
                continue
            judge.breaks(
                wrong,
                f"indirect request id {half.id}: {wrong}",
                bound=[names.taken(half)],
                because=[f"R{half.id} has {half.nr} segments, and 512 of them fill an indirect page"],
                contradiction=f"{wrong}",
            )


def _wrong_head(half: BackHalf) -> str | None:
    if half.inner_op not in (wire.READ, wire.WRITE):
        return f"it wraps a {wire.operation(half.inner_op)}"
    if not 1 <= half.nr <= _MOST_PAGES * wire.SEGMENTS_PER_PAGE:
        return f"it announces {half.nr} segments"
    return None


def _wrong_pages(half: BackHalf, front: FrontHalf | None) -> str | None:
    pages = wire.indirect_pages(half.nr)
    if front is not None and front.push is not None:
        pushed = front.push.indirect_gref[:pages]
        if tuple(half.taken.indirect_gref[:pages]) != tuple(pushed):
            return "its indirect pages are not those that the frontend put on the ring"
    mapped = [call.start.n for call in half.calls if call.indirect]
    if mapped and mapped[0] != pages:
        return f"the backend maps {mapped[0]} indirect pages for it"
    return None


def _halves(run: History) -> list[BackHalf]:
    return [half for ring in run.rings if ring.back for half in ring.back.halves if half.has_data]
