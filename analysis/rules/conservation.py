"""What must be left when all is over: nothing, R53."""

from __future__ import annotations

from collections import abc

from blkproof.analysis import names, wire
from blkproof.analysis.entities import Device, Grant, Mapping, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.verdict import Bound
from blkproof.traces.events import UNMAPS_IN
from blkproof.traces.gnttab import ActiveGrant


@rule(
    id="R53",
    level="MUST",
    side="both",
    source="Linux xen_blkif_disconnect, blkif_free_ring; Xen gnttab_usage_print",
    obligation="When a device is closed, the backend has no grant of it mapped, and the frontend has ended "
    "all of them.",
    needs={
        *("be_request", "be_map", "be_map_ret", "be_add", "be_add_ret", "be_free_persistent"),
        *("gt_map", *UNMAPS_IN),
    },
    also={
        *("fe_queue", "fe_push", "gt_grant", "gt_end", "gt_put_free"),
        *("xs_write", "xs_switch"),
    },
    obeys=lambda play: play.io(wire.WRITE),
    breaks=lambda play: (play.io(wire.WRITE), play.close(skip={"gt_unmap"})),
)
def nothing_is_left(run: History, judge: Judge) -> None:
    """Account for every mapping and every grant, and read Xen's own list after the detaching."""
    for ring in run.rings:
        if ring.back is not None:
            for mapping in (mapping for half in ring.back.halves for mapping in half.mappings):
                _mapping(run, judge, ring, mapping)
            for teardown in ring.back.teardowns:
                _counted(judge, ring, teardown.event.num, teardown.size, teardown.event.tsc)
    for grant in (*run.grants, *run.ring_pages):
        _grant(run, judge, grant)
    for device in sorted({ring.device for ring in run.rings}):
        _dump(run, judge, device)


def _mapping(run: History, judge: Judge, ring: Ring, mapping: Mapping) -> None:
    if mapping.unmapped is not None:
        judge.holds()
        return
    closed = run.closed(ring.device, mapping.event.tsc)
    gap = judge.gap(BACKEND, mapping.event.tsc, run.end)
    if gap or mapping.hidden or closed is None:
        judge.undecided(gap or ("its unmap was too large to be recorded" if mapping.hidden else _NOT_CLOSED))
        return
    label = f"M{mapping.op.gref}"
    judge.breaks(
        "left mapped",
        f"backend closes device {ring.device.vdev} with grant {mapping.op.gref} still mapped",
        bound=[names.mapped(mapping), Bound.to("X", closed, "the backend closes the device")],
        because=[f"{label} < X, and all that was mapped has to be unmapped at X"],
        contradiction=f"handle {mapping.op.handle} of {label} is never unmapped",
    )


_NOT_CLOSED = "the recording ended before the device was closed"


def _counted(judge: Judge, ring: Ring, counted: int, size: int, tsc: int) -> None:
    if counted == size:
        judge.holds()
        return
    gap = judge.gap(BACKEND, ring.begin, tsc)
    judge.undecided(gap or f"the backend empties a tree of {counted} grants, the events tell of {size}")


def _grant(run: History, judge: Judge, grant: Grant) -> None:
    if grant.ended is not None:
        judge.holds()
        return
    source, begin = grant.event.source, grant.event.tsc
    freed = _ring_freed(run.ring_pages, grant)
    gap = judge.gap(source, begin, run.end)
    if gap or grant.closing is not None or freed is None:
        put_off = "the frontend put off the end of a grant that the backend still had mapped"
        judge.undecided(gap or (put_off if grant.closing is not None else _NOT_CLOSED))
        return
    assert freed.ended is not None
    judge.breaks(
        "left granted",
        f"frontend frees its ring, but never ends grant {grant.event.ref}",
        bound=[
            Bound.to("G", grant.event, f"grant {grant.event.ref} is given to dom0"),
            Bound.to("X", freed.ended, f"grant {freed.event.ref} of the ring itself is ended"),
        ],
        because=["G < X, and the frontend ends its ring's grant after all others"],
        contradiction=f"grant {grant.event.ref} is never ended",
    )


def _ring_freed(pages: abc.Sequence[Grant], grant: Grant) -> Grant | None:
    """Return the ring page that lived around ``grant`` and has ended, if there is one."""
    for page in pages:
        if page is grant or page.ended is None or page.event.source != grant.event.source:
            continue
        if page.event.tsc <= grant.event.tsc <= page.ended.tsc:
            return page
    return None


def _dump(run: History, judge: Judge, device: Device) -> None:
    """Look for this disk's grants in Xen's list; other devices, the console and xenstore have some too."""
    dump = run.facts.detached
    if dump is None or run.closed(device, 0) is None:
        return
    if not dump.complete:
        judge.undecided("Xen's list of grants is cut off")
        return
    granted = {grant.event.ref: grant for grant in (*run.grants, *run.ring_pages)}
    left = [
        active
        for active in dump.mapped_by(device.domid, 0)
        if active.ref in granted and granted[active.ref].event.frame == active.mfn
    ]
    if not left:
        judge.holds()
        return
    ref = left[0].ref
    judge.breaks(
        "active in Xen",
        f"Xen still lists {len(left)} grants of device {device.vdev} as mapped by dom0 after the detaching",
        bound=[Bound.to("G", granted[ref].event, f"grant {ref} is given to dom0"), _listed(left[0])],
        because=["A shows the reference and the frame of G", "the device is closed"],
        contradiction=f"grant {ref} is mapped",
    )


def _listed(grant: ActiveGrant) -> Bound:
    what = f"grant {grant.ref}, machine frame {grant.mfn:#x}, mapped by domain {grant.mapper}"
    return Bound("A", what, "xl debug-keys g", 0, "xen", -1, -1, "gnttab.txt", 0)
