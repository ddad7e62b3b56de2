"""Sectors: they count 512 bytes, but requests keep to the disk's own sector size: R14 and R15."""

from __future__ import annotations

from blkproof.analysis import names, wire
from blkproof.analysis import store as paths
from blkproof.analysis.entities import BackHalf, Device, Ring
from blkproof.analysis.facts import BACKEND
from blkproof.analysis.history import History
from blkproof.analysis.judge import Judge
from blkproof.analysis.registry import rule
from blkproof.analysis.rules.common import unseen
from blkproof.analysis.sessions import CONNECTED, State, back_states, enters, missed_of
from blkproof.analysis.verdict import Level


@rule(
    id="R14",
    level="MUST",
    side="both",
    source='blkif.h "sectors", "sector-size" (commit 221f2748e8); Linux connect, xen_vbd_translate',
    obligation="All sectors on the wire have 512 bytes, whatever the sector-size, which is a power of two "
    "from 512 on and divides the physical-sector-size.",
    needs={"xs_write"},
    also={"be_request", "be_submit"},
    obeys=lambda play: play.set(sector_size=4096).io(wire.WRITE),
    breaks=lambda play: play.set(sector_size=4096).io(wire.WRITE, be_submit={"sector": 8}),
)
def sectors_of_512_bytes(run: History, judge: Judge) -> None:
    """Look at the sizes that the backend tells, and at the place on its disk that a request goes to."""
    for device in run.store.devices:
        for state in enters(back_states(run, device), CONNECTED):
            _sizes(run, judge, device, state)
    for ring in run.rings:
        for half in ring.back.halves if ring.back else ():
            if half.submit is not None and half.segments:
                _place(judge, half)


def _sizes(run: History, judge: Judge, device: Device, state: State) -> None:
    def told(key: str) -> int | None:
        return run.store.number(paths.back(device, key), state.tsc)

    size, sectors = told("sector-size"), told("sectors")
    if size is None or sectors is None:
        judge.undecided(
            missed_of(judge, BACKEND, run, state.tsc) or "the backend did not tell its disk's size"
        )
        return
    physical = told("physical-sector-size") or size
    level: Level = "MUST"
    if size < wire.SECTOR_BYTES or size & (size - 1):
        wrong = f"sector-size {size}, no power of two from 512 on"
    elif physical % size:
        wrong = f"physical-sector-size {physical}, no multiple of its sector-size {size}"
    elif sectors * wire.SECTOR_BYTES % physical:
        # Linux tells the size of any partition as it is.
        wrong = f"{sectors} sectors, which end inside a physical sector of {physical} bytes"
        level = "QUAL"
    else:
        judge.holds()
        return
    judge.breaks(
        wrong.split(maxsplit=1)[0] if level == "MUST" else "end",
        f"backend of device {device.vdev} tells of {wrong}",
        level=level,
        bound=[names.written("S", state.event)],
        because=["S lets the frontend read what the disk is"],
        contradiction=f"it is {wrong}",
    )


def _place(judge: Judge, half: BackHalf) -> None:
    assert half.submit is not None
    if half.submit.sector == half.taken.sector:
        judge.holds()
        return
    if gap := judge.gap(BACKEND, half.taken.tsc, half.submit.tsc):
        judge.undecided(gap)
        return
    judge.breaks(
        "place",
        f"request id {half.id} goes to sector {half.submit.sector} of the disk, not to {half.taken.sector}",
        bound=[names.taken(half), names.submitted(half)],
        because=[f"B{half.id} is what the thread that took R{half.id} submits for it"],
        contradiction=f"R{half.id} is for sector {half.taken.sector}, in units of 512 bytes as on the disk",
    )


@rule(
    id="R15",
    level="MUST",
    side="frontend",
    source='blkif.h "sector-size", "discard-granularity"; Linux dispatch_rw_block_io',
    obligation="Requests, their segments and discards begin and end at whole sectors of the disk; the "
    "backend refuses any other.",
    needs={"be_request", "be_indirect", "be_response"},
    also={"be_indirect_more", "be_indirect_rest", "be_discard", "xs_write"},
    obeys=lambda play: (play.set(sector_size=4096).io(wire.WRITE), play.discard()),
    breaks=lambda play: play.set(sector_size=4096).io(wire.WRITE, segments=[wire.Segment(100, 0, 3)]),
)
def aligned_to_sectors(run: History, judge: Judge) -> None:
    """Look at every place and length, where a sector has more than 512 bytes."""
    for ring in run.rings:
        halves = ring.back.halves if ring.back else []
        size = run.store.number(paths.back(ring.device, "sector-size"), ring.begin)
        if size is None:
            judge.undecided("the sector-size of the disk is not known from xenstore", len(halves))
            continue
        unit = max(1, size // wire.SECTOR_BYTES)
        for half in halves:
            if half.taken.event == "be_discard":
                _discard(run, judge, ring, half, unit)
            elif unit == 1 or half.taken.event == "be_other":
                judge.holds()
            elif half.segments is None:
                judge.undecided(unseen(run, judge, half))
            else:
                _request(judge, half, unit)


def _request(judge: Judge, half: BackHalf, unit: int) -> None:
    assert half.segments is not None
    lengths = [half.taken.sector, *(segment.sectors for segment in half.segments)]
    starts = [segment.first for segment in half.segments]
    if half.nr == 0 or not any(number % unit for number in (*lengths, *starts)):
        judge.holds()
        return
    refused = half.response is None or half.response.status != wire.OKAY
    # Linux's backend looks at the place and the lengths alone: by them the offsets on the disk are aligned.
    accepted = not refused and any(number % unit for number in lengths)
    judge.breaks(
        "accepted" if accepted else "request",
        f"request id {half.id} does not keep to sectors of {unit * wire.SECTOR_BYTES} bytes"
        + (", and the backend accepts it" if accepted else ""),
        bound=[names.taken(half)],
        because=[f"sector-size is {unit * wire.SECTOR_BYTES}, which is {unit} sectors on the wire"],
        contradiction=f"R{half.id} is for sector {half.taken.sector}, and its segments are "
        + ", ".join(f"{segment.first} to {segment.last}" for segment in half.segments[:_SHOWN]),
    )


_SHOWN = 3


def _discard(run: History, judge: Judge, ring: Ring, half: BackHalf, unit: int) -> None:
    sector, count = half.taken.sector, half.taken.nr_sectors
    grain = run.store.number(paths.back(ring.device, "discard-granularity"), ring.begin) or 0
    shift = run.store.number(paths.back(ring.device, "discard-alignment"), ring.begin) or 0
    if sector % unit or count % unit:
        wrong, level = f"sectors of {unit * wire.SECTOR_BYTES} bytes", None
    elif grain and (sector * wire.SECTOR_BYTES - shift) % grain:
        # The block layer of Linux only splits at the granularity; the begin is the user's.
        wrong, level = f"the discard-granularity {grain}", "QUAL"
    else:
        judge.holds()
        return
    judge.breaks(
        "discard" if level is None else "granularity",
        f"discard id {half.id} does not keep to {wrong}",
        level="QUAL" if level else None,
        bound=[names.taken(half)],
        because=[f"sector-size, discard-granularity and -alignment of device {ring.device.vdev} say so"],
        contradiction=f"R{half.id} is for {count} sectors from {sector}",
    )
