"""The backend's tree of persistent grants: R42 to R44."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis.entities import Adding, BackHalf, BackRing, Known, Lookup, Mapping, Seen, TreeUnmap
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import unfinished
from blkproof.analysis.rules.grants import given_back
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import UNMAPS_IN

_TREE = {
    "be_request",
    "be_map",
    "be_map_ret",
    "be_get",
    "be_get_ret",
    "be_add",
    "be_add_ret",
    "be_put",
    "be_purge",
    "be_free_persistent",
    "be_response",
    "gt_map",
    *UNMAPS_IN,
}
_LEGAL = {
    (True, Known.FREE),
    (False, Known.ABSENT),
    (True, Known.MAYBE),
    (False, Known.MAYBE),
    # The backend refuses a grant that is in use; that it is asked for one is the frontend's fault (R47).
    (False, Known.BUSY),
}


@rule(
    id="R42",
    level="MUST",
    side="backend",
    source="Linux get_persistent_gnt, add_persistent_gnt, purge_persistent_gnt",
    obligation="A kept grant is found when it is looked up, mapped only once, and unmapped only by a purge "
    "or at the end.",
    needs=_TREE,
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.WRITE), play.purge([100])),
    breaks=lambda play: (play.io(wire.WRITE), play.set(misses={100}).io(wire.WRITE)),
)
def tree_is_kept(run: History, judge: Judge) -> None:
    """Compare every look-up, map and unmap with the model of the tree."""
    for ring in run.rings:
        if ring.back is None:
            continue
        for half in ring.back.halves:
            for call in half.calls:
                for lookup in call.lookups:
                    _look_up(run, judge, lookup)
                for mapping in call.mappings if call.lookups else ():
                    _mapped_again(judge, mapping)
        for adding in ring.back.addings:
            _added(judge, adding)
        for unmap in ring.back.unmaps:
            _unmapped(judge, unmap)
        _drift(judge, ring.back)


def _look_up(run: History, judge: Judge, lookup: Lookup) -> None:
    gref, seen = lookup.event.gref, lookup.seen
    if lookup.result is None:
        judge.undecided(unfinished(run, judge, lookup.event.tsc))
        return
    moved = lookup.hit and seen.handle is not None and lookup.result.handle != seen.handle
    moved = moved or (lookup.hit and lookup.result.gref != gref)
    if (lookup.hit, seen.known) in _LEGAL and not moved:
        judge.holds()
        return
    gap = judge.gap(BACKEND, seen.since, lookup.result.tsc)
    if gap or seen.known is Known.UNKNOWN:
        judge.undecided(gap or "what the tree held before the recording is not known")
        return
    found = f"found with handle {lookup.result.handle}" if lookup.hit else "not found"
    judge.breaks(
        f"look-up {lookup.hit} {seen.known.name}",
        f"look-up of grant {gref} in the tree: {found}, where it was {seen.known.value}",
        bound=[
            *_state(seen),
            Bound.to("L", lookup.event, f"look-up of grant {gref}"),
            Bound.to("X", lookup.result, f"the result: {found}"),
        ],
        because=[f"grant {gref} was {seen.known.value} at L, by all that happened before"],
        contradiction=f"it was {found}",
    )


def _mapped_again(judge: Judge, mapping: Mapping) -> None:
    seen = mapping.again
    if seen is None:
        judge.holds()
    elif gap := judge.gap(BACKEND, seen.since, mapping.event.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "mapped again",
            f"grant {mapping.op.gref} is mapped again although the tree holds it",
            bound=[*_state(seen), names.mapped(mapping, "N")],
            because=[f"the tree held grant {seen.gref} with handle {seen.handle}, not in use"],
            contradiction=f"N maps it once more, as handle {mapping.op.handle}",
        )


def _added(judge: Judge, adding: Adding) -> None:
    seen = adding.twice
    if seen is None or not adding.done:
        judge.holds()
    elif gap := judge.gap(BACKEND, seen.since, adding.event.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "added twice",
            f"grant {adding.event.gref} is added to the tree twice",
            bound=[*_state(seen), Bound.to("A", adding.event, f"grant {adding.event.gref} is added")],
            because=[f"the tree held grant {seen.gref} with handle {seen.handle}"],
            contradiction="A adds it again",
        )


def _unmapped(judge: Judge, unmap: TreeUnmap) -> None:
    seen = unmap.seen
    if unmap.due:
        judge.holds()
    elif gap := judge.gap(BACKEND, seen.since, unmap.event.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "unmapped",
            f"grant {seen.gref} is unmapped although the tree holds it",
            bound=[*_state(seen), Bound.to("U", unmap.event, f"handle {seen.handle} is unmapped")],
            because=["no purge took it out of the tree, and the tree is not being emptied"],
            contradiction=f"U unmaps its handle {seen.handle}",
        )


def _drift(judge: Judge, ring: BackRing) -> None:
    drift = ring.tree.drift
    if drift is not None:
        gap = judge.gap(BACKEND, 0, drift.tsc)
        judge.undecided(
            gap or f"the backend counts {drift.pgc} grants in its tree, the events tell another number"
        )


@rule(
    id="R43",
    level="MUST",
    side="backend",
    source="Linux put_persistent_gnt, xen_blkbk_unmap_prepare, xen_blkif_disconnect",
    obligation="A kept grant is in use from its look-up until its request gives it back, before the "
    "response, and is never unmapped in between.",
    needs=_TREE,
    obeys=lambda play: (play.io(wire.WRITE), play.io(wire.READ)),
    breaks=lambda play: play.io(wire.WRITE, skip={"be_put"}),
)
def in_use_is_respected(run: History, judge: Judge) -> None:
    """Follow the kept grants of every request until it is answered, and those that are unmapped."""
    for ring in run.rings:
        if ring.back is None:
            continue
        for half in ring.back.halves:
            if half.response is not None and any(call.lookups for call in half.calls):
                _put_back(judge, half)
        for event, seen in ring.back.puts:
            if event.active == 1:
                judge.holds()
                continue
            judge.breaks(
                "put twice",
                f"grant {event.gref} is given back although it is not in use",
                bound=[*_state(seen), Bound.to("P", event, f"grant {event.gref} is given back")],
                because=["only what is in use can be given back"],
                contradiction="the backend's own flag at P says that it was not",
            )
        for unmap in ring.back.unmaps:
            _unmapped_in_use(judge, unmap)
        for teardown in ring.back.teardowns:
            if teardown.event.in_use == 0:
                judge.holds()
                continue
            judge.breaks(
                "in use at the end",
                f"{teardown.event.in_use} kept grants are still in use when the tree is emptied",
                bound=[Bound.to("D", teardown.event, "the backend empties its tree")],
                because=["all requests are answered by then"],
                contradiction=f"the backend counts {teardown.event.in_use} grants in use at D",
            )


def _put_back(judge: Judge, half: BackHalf) -> None:
    assert half.response is not None
    if not half.left_held:
        judge.holds()
        return
    seen = half.left_held[0]
    if gap := judge.gap(BACKEND, half.taken.tsc, half.response.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "not given back",
        f"request id {half.id} is answered while kept grant {seen.gref} is still in use by it",
        bound=[names.taken(half), *_state(seen), names.response(half.response)],
        because=[f"R{half.id} uses grant {seen.gref} from K on", "only be_put gives a kept grant back"],
        contradiction=f"nothing gave it back between K and S{half.id}",
    )


def _unmapped_in_use(judge: Judge, unmap: TreeUnmap) -> None:
    seen = unmap.seen
    if seen.known is not Known.BUSY:
        judge.holds()
    elif gap := judge.gap(BACKEND, seen.since, unmap.event.tsc):
        judge.undecided(gap)
    else:
        judge.breaks(
            "unmapped in use",
            f"kept grant {seen.gref} is unmapped while a request uses it",
            bound=[*_state(seen), Bound.to("U", unmap.event, f"handle {seen.handle} is unmapped")],
            because=[f"grant {seen.gref} was in use from K on, and not given back before U"],
            contradiction=f"U unmaps its handle {seen.handle}",
        )


@rule(
    id="R44",
    level="MUST",
    side="backend",
    source="Linux xen_blkbk_map, max_persistent_grants",
    obligation="A ring keeps no more grants than the limit, and unmaps what does not fit before the "
    "response.",
    needs=_TREE,
    also={"xs_write"},
    obeys=lambda play: play.set(cap=1).io(wire.WRITE),
    breaks=lambda play: play.set(cap=1).io(wire.WRITE, be_map={"pgc": 2}),
)
def within_the_limit(run: History, judge: Judge) -> None:
    """Compare the size of each tree with the limit, and look at what did not fit."""
    cap = run.cap
    for ring in run.rings:
        if ring.back is None or not ring.persistent:
            continue
        if cap is None:
            judge.undecided("the parameter max_persistent_grants of the backend is not known")
        else:
            _sizes(judge, ring.back, cap)
        for half in ring.back.halves:
            if half.response is not None and any(m.entry is None for m in half.mappings):
                given_back(judge, half, "did not fit")


def _sizes(judge: Judge, ring: BackRing, cap: int) -> None:
    for event, size in ring.sizes:
        if size <= cap:
            judge.holds()
            continue
        judge.breaks(
            "limit",
            f"the tree holds {size} grants, more than its limit of {cap}",
            bound=[Bound.to("T", event, f"the tree holds {size} grants")],
            because=[f"max_persistent_grants was {cap}"],
            contradiction=f"there are {size} at T",
        )


def _state(seen: Seen | None) -> list[Bound]:
    """Name the event by which the state of a kept grant is known: K."""
    if seen is None or seen.event is None:
        return []
    return [Bound.to("K", seen.event, f"grant {seen.gref}, handle {seen.handle}: {seen.known.value}")]
