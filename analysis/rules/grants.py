"""Grants and their mappings: R39, R40, R41, R47 and R52."""

from __future__ import annotations

from collections.abc import Sequence

from blkproof.analysis import names, wire
from blkproof.analysis.entities import BackHalf, Ending, FrontHalf, MapCall, Mapping, Ring, Unmapping
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import offers, unknown_offers, unseen
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import UNMAPS_IN

_WHOSE = {"be_request", "be_indirect", "be_map", "be_map_ret", "be_response"}
"""Events that tell for which pages of which request a grant is mapped."""


@rule(
    id="R39",
    level="MUST",
    side="frontend",
    source="blkif.h note 8; Linux get_grant, get_indirect_grant",
    obligation="With persistent grants all grants are writable; Linux never grants read-only.",
    needs={"fe_queue", "fe_push", "gt_grant"},
    also={"xs_write"},
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: play.io(wire.WRITE, gt_grant={"ro": 1}),
)
def granted_writable(run: History, judge: Judge) -> None:
    """Look at every grant that was given for a segment or an indirect page."""
    for ring in run.rings:
        for half in ring.front.halves if ring.front else ():
            for grant in half.grants:
                if grant.event.ro == 0:
                    judge.holds()
                    continue
                judge.breaks(
                    "read-only",
                    f"frontend grants reference {grant.event.ref} read-only",
                    level="MUST" if ring.persistent else "LINUX",
                    bound=[
                        *offers(run, ring),
                        names.queued(half),
                        Bound.to("G", grant.event, f"grant {grant.event.ref} of a frame to dom0"),
                    ],
                    because=["the backend may keep G, and use it for any later request"],
                    contradiction="G is read-only",
                )


@rule(
    id="R40",
    level="MUST",
    side="backend",
    source="blkif.h note 8; Linux xen_blkbk_map",
    obligation="Persistent grants are mapped writable; without them, pages that the backend only reads are "
    "mapped read-only and all others writable.",
    needs={*_WHOSE, "gt_map"},
    also={"xs_write"},
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ), play.io(wire.WRITE, nr=20)),
    breaks=lambda play: play.set(map_flags=wire.HOST_MAP | wire.READ_ONLY).io(wire.WRITE),
)
def map_flags(run: History, judge: Judge) -> None:
    """Look at the flags of every map operation that the block backend made."""
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            for call in half.calls:
                _flags_of_call(run, judge, ring, half, call)


def _flags_of_call(run: History, judge: Judge, ring: Ring, half: BackHalf, call: MapCall) -> None:
    if ring.persistent is None:
        judge.undecided(unknown_offers(run, ring), len(call.mappings))
        return
    only_read = call.indirect or half.inner_op != wire.READ
    due = wire.HOST_MAP if ring.persistent or not only_read else wire.HOST_MAP | wire.READ_ONLY
    for mapping in call.mappings:
        if mapping.op.flags == due:
            judge.holds()
        elif gap := judge.gap(BACKEND, half.taken.tsc, mapping.event.tsc, _WHOSE):
            judge.undecided(gap)
        else:
            _wrong_flags(offers(run, ring), judge, ring, mapping, due)


def _wrong_flags(said: Sequence[Bound], judge: Judge, ring: Ring, mapping: Mapping, due: int) -> None:
    half = mapping.call.half
    assert half is not None
    flags, gref = mapping.op.flags, mapping.op.gref
    label = f"M{gref}"
    pages = "indirect pages" if mapping.call.indirect else f"pages of a {wire.operation(half.inner_op)}"
    mode = "kept by the backend, which may need to write to them later" if ring.persistent else "not kept"
    too_much = ring.persistent is False and due & wire.READ_ONLY and flags == wire.HOST_MAP
    judge.breaks(
        f"flags {flags} for {due}",
        f"backend maps grant {gref} with flags {flags} instead of {due} for request id {half.id}",
        level="LINUX" if too_much else "MUST",
        bound=[*said, names.taken(half), names.mapped(mapping)],
        because=[
            f"{label} was mapped for R{half.id}, because the thread that took R{half.id} mapped it",
            f"it is one of the {pages}, and grants are {mode}, so its flags have to be {due}",
        ],
        contradiction=f"the flags of {label} are {flags}"
        + (" (read-only)" if flags & wire.READ_ONLY else ""),
    )


@rule(
    id="R41",
    level="MUST",
    side="backend",
    source='blkif.h "feature-persistent"; Linux xen_blkbk_unmap_and_respond, blkif_completion',
    obligation="Without persistent grants, every grant of a request is unmapped before its response.",
    needs={
        "be_request",
        "be_map",
        "be_map_ret",
        "be_response",
        "gt_map",
        *UNMAPS_IN,
    },
    also={"fe_queue", "fe_push", "fe_response", "gt_try_end", "gt_put_free", "xs_write"},
    obeys=lambda play: play.set(back_offer=0, back_parameter="N").io(wire.WRITE),
    breaks=lambda play: play.set(back_offer=0, back_parameter="N").io(wire.WRITE, respond_first=True),
)
def unmapped_first(run: History, judge: Judge) -> None:
    """Look at what was still mapped at each response, and whether the frontend could end each grant."""
    for ring in run.rings:
        if ring.persistent:
            continue
        for half in ring.back.halves if ring.back else ():
            if half.mappings and ring.persistent is None:
                judge.undecided(unknown_offers(run, ring))
            elif half.mappings and half.response is not None:
                given_back(judge, half, "an own grant is still mapped")
        for front in ring.front.halves if ring.front and ring.persistent is False else ():
            for ending in front.endings:
                _could_end(run, judge, ring, front, ending)


def given_back(judge: Judge, half: BackHalf, kind: str) -> None:
    """Demand that a request had unmapped, when it was answered, what it had mapped for itself alone."""
    assert half.response is not None
    if not half.left_mapped:
        judge.holds()
        return
    left = half.left_mapped[0]
    if gap := judge.gap(BACKEND, half.taken.tsc, half.response.tsc):
        judge.undecided(gap)
        return
    label = f"M{left.op.gref}"
    bound = [names.taken(half), names.mapped(left), names.response(half.response)]
    then = "it was never unmapped"
    if left.unmapped is not None:
        bound.append(Bound.to("U", left.unmapped, f"handle {left.op.handle} is unmapped"))
        then = "it was unmapped only by U"
    judge.breaks(
        kind,
        f"{len(half.left_mapped)} grants of request id {half.id} are still mapped when it is answered",
        bound=bound,
        because=[
            f"R{half.id} < {label} < S{half.id}, and {label} was mapped for R{half.id} alone",
            "so it has to be unmapped before the frontend is told that it may use the page again",
        ],
        contradiction=f"{label} was mapped at S{half.id}; {then}",
    )


def _could_end(run: History, judge: Judge, ring: Ring, half: FrontHalf, ending: Ending) -> None:
    if ending.freed is not None:
        judge.holds()
    elif gap := judge.gap(run.guest(ring), ending.event.tsc, run.end):
        judge.undecided(gap)
    elif not ending.over:
        judge.undecided("the recording ended before the frontend had ended a grant")
    else:
        assert half.completion is not None
        judge.breaks(
            "still mapped",
            f"frontend can't end grant {ending.event.ref} of a completed request: it is still mapped",
            bound=[
                names.queued(half),
                Bound.to("C", half.completion, f"completion of id {half.completion.id}"),
                Bound.to("E", ending.event, f"the frontend ends grant {ending.event.ref}"),
            ],
            because=["C < E, so the backend had answered, and had not been allowed to keep the grant"],
            contradiction=f"grant {ending.event.ref} was mapped at E",
        )


@rule(
    id="R47",
    level="MUST",
    side="frontend",
    source="Linux get_persistent_gnt and add_persistent_gnt, which complain",
    obligation="No grant is in two outstanding requests, or twice in one.",
    needs={"be_request", "be_map", "be_map_ret", "be_get", "gt_map", "be_response"},
    also={"be_indirect"},
    obeys=lambda play: play.burst(2),
    breaks=lambda play: play.io(wire.WRITE, segments=[wire.Segment(100, 0, 7), wire.Segment(100, 0, 7)]),
)
def used_once(run: History, judge: Judge) -> None:
    """Look for grants that an unanswered request already had when the backend read them again."""
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            if not half.has_data:
                continue
            if half.grefs is None:
                judge.undecided(unseen(run, judge, half))
            elif not half.clashes:
                judge.holds()
            else:
                _clash(judge, half, *half.clashes[0])


def _known(half: BackHalf) -> int:
    """Return the time by which the grants of a request are known: those in its pages once they are mapped."""
    last = half.calls[-1].end if half.calls and half.indirect else None
    return half.taken.tsc if last is None else last.tsc


def _clash(judge: Judge, half: BackHalf, gref: int, other: BackHalf) -> None:
    if gap := judge.gap(BACKEND, other.taken.tsc, _known(half)):
        judge.undecided(gap)
        return
    twice = other is half
    first = names.taken(other, "A")
    judge.breaks(
        "twice in one" if twice else "in two",
        f"grant {gref} is "
        + (
            f"twice in request id {half.id}"
            if twice
            else f"in requests id {other.id} and id {half.id} at once"
        ),
        bound=[first] if twice else [first, names.taken(half, "B")],
        because=[f"A uses grant {gref}"] + ([] if twice else ["A < B, and A was not answered before B"]),
        contradiction=f"{'A' if twice else 'B'} uses grant {gref} {'again' if twice else 'too'}",
    )


@rule(
    id="R52",
    level="MUST",
    side="backend",
    source="grant_table.h GNTTABOP_unmap_grant_ref; Linux gnttab_unmap_refs",
    obligation="Every handle is unmapped once, at the address where it was mapped, with success.",
    needs={"be_map", "be_map_ret", "gt_map", *UNMAPS_IN},
    obeys=lambda play: play.set(cap=0).io(wire.WRITE),
    breaks=lambda play: play.set(cap=0, unmap_status=-3).io(wire.WRITE),
)
def unmapped_once(run: History, judge: Judge) -> None:
    """Look at every unmap of a handle that the block backend had."""
    for unmapping in run.unmappings:
        if unmapping.op.status == wire.OKAY:
            judge.holds()
        else:
            _refused(judge, unmapping)


def _refused(judge: Judge, unmapping: Unmapping) -> None:
    op, before = unmapping.op, unmapping.before
    bound = [Bound.to("U", unmapping.event, f"handle {op.handle} is unmapped, status {op.status}")]
    because = []
    if before is not None:
        bound.insert(0, names.mapped(before, "M"))
        because.append(f"M < U, and M has the handle {op.handle}")
        if before.unmapped is not None:
            bound.insert(
                1, Bound.to("V", before.unmapped, f"handle {op.handle} is unmapped for the first time")
            )
            because.append("V already ended M")
        elif before.op.host != op.host:
            because.append(f"M is at address {before.op.host:#x}, U says {op.host:#x}")
    judge.breaks(
        "refused",
        f"unmapping handle {op.handle} fails with status {op.status}",
        bound=bound,
        because=because,
        contradiction=f"Xen refused U with status {op.status}",
    )
