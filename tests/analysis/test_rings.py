"""Several rings and several lives of one disk, and which side's ring belongs to which."""

from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import RINFO, RING, Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.table import EventTable


def played(first_gref=100, sector=0):
    play = Play()
    play._next_gref, play._next_handle = first_gref, first_gref
    for nr in (3, 20, 1):
        for op in (wire.WRITE, wire.READ):
            place = {"sector": sector + 8 * op}
            play.io(op, nr, fe_queue=place, fe_push=place, be_request=place, be_submit=place)
    return play.close()


def moved(rows, ticks, address=0, pid=0, cpu=0):
    """Return rows as another ring would leave them: later, elsewhere, by other threads and CPUs."""
    found = []
    for name, tsc, fields in rows:
        new = {**fields, "pid": fields["pid"] + pid, "cpu": cpu}
        new |= {key: base + address for key, base in (("ring", RING), ("rinfo", RINFO)) if key in fields}
        found.append((name, tsc + ticks, new))
    return found


def judged(rows, facts):
    return judge(replayed(rows, facts))


def replayed(rows, facts):
    return history.replay(EventTable.from_events(sorted(rows, key=lambda row: row[1])), facts)


def test_two_queues_of_one_disk_are_told_apart():
    one, two = played(), played(5000, sector=4096)
    # The second queue's backend ring lies below the first's, while its frontend ring lies above.
    second = moved(two.rows, 1, 0, pid=7, cpu=1)
    for _, _, fields in second:
        fields.update(
            {key: place for key, place in (("ring", RING - 4096), ("rinfo", RINFO + 512)) if key in fields}
        )
    second = [row for row in second if row[0] not in {"xs_switch", "gt_map_ring", "gt_unmap_ring"}]
    rows = one.rows + [row for row in second if row[0] != "xs_write" or row[2]["node"] == "ring-ref"]
    run = replayed(rows, one.facts())
    assert len(run.rings) == 2
    for ring in run.rings:
        assert (ring.back.address == RING) == (ring.front.address == RINFO)
        assert all(request.front and request.back for request in ring.requests)
    verdict = judge(run)
    assert verdict.findings == ()
    assert verdict.requests == 12


def test_a_disk_that_is_attached_again_at_the_same_addresses_is_another_ring():
    one, two = played(), played()
    later = one.tsc + 1000
    verdict = judged(one.rows + moved(two.rows, later), one.facts())
    assert verdict.findings == ()
    assert (verdict.outcome, verdict.requests) == (Outcome.PASS, 12)


def test_another_driver_s_mappings_are_not_the_backend_s():
    """The network backend maps and unmaps between the steps of the block backend, even at reused handles."""
    play = played()
    number = next(n for n, row in enumerate(play.rows) if row[0] == "gt_unmap")
    handle = 100
    tsc = play.rows[number][1]
    op = (0xABC000, 2 | 900 << 32, 1 | handle << 32, 0)
    extra = [
        ("gt_map", tsc + 1, {"source": "dom0", "pid": 55, "n": 1, "ops": op}),
        ("gt_unmap", tsc + 2, {"source": "dom0", "pid": 55, "n": 1, "ops": (0xABC000, 0, handle)}),
        ("xen_map", tsc + 1, {"source": "xen", "pid": -1, "dom": 1}),
        ("xen_unmap", tsc + 2, {"source": "xen", "pid": -1, "dom": 1}),
    ]
    verdict = judged(play.rows + extra, play.facts())
    assert (verdict.outcome, verdict.findings, verdict.reasons) == (Outcome.PASS, (), ())


def test_a_handle_may_be_reused_before_its_unmap_is_recorded():
    """Xen frees a handle before the event of the unmap: a new mapping of it may be recorded first."""
    play = Play().set(cap=0)
    play.io(wire.WRITE, 1)
    unmap = next(n for n, row in enumerate(play.rows) if row[0] == "gt_unmap")
    other = Play().set(cap=0)
    other._next_handle, other._next_gref = 40, 800
    other.io(wire.WRITE, 1)
    mapped = next(tsc for name, tsc, _ in other.rows if name == "gt_map")
    begun = next(number for number, row in enumerate(other.rows) if row[0] == "fe_queue")
    rows = moved(other.rows[begun:], play.rows[unmap][1] - mapped - 50, 4096, pid=9, cpu=1)
    for name, _, fields in rows:
        if name in {"gt_map", "gt_unmap"}:
            fields["ops"] = (0x777000, *fields["ops"][1:])
    times = {name: tsc for name, tsc, _ in rows}
    assert times["gt_map"] < play.rows[unmap][1] < times["gt_unmap"]
    run = replayed(play.rows + rows, play.facts())
    assert all(mapping.unmapped is not None for mapping in run.mappings)
    assert all(unmapping.mapping is not None for unmapping in run.unmappings)
