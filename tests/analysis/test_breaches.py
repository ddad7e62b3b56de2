"""Other ways to break a rule than the one that it shows itself: each is found, and told as what it is."""

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import RING, Play

THREAD, WORKER = 700, 30
SPURIOUS = 1


def after(play, event, **fields):
    """Add an event at the end."""
    play.tsc += 100
    play.rows.append((event, play.tsc, {"source": "dom0", "pid": THREAD, **fields}))


def change(play, event, number, **fields):
    """Change the fields of one event."""
    [row for row in play.rows if row[0] == event][number][2].update(fields)


def drop(play, event, source):
    play.rows = [row for row in play.rows if (row[0], row[2]["source"]) != (event, source)]


def event_index_of_the_frontend_stays(play):
    play.io()
    play.io(fe_push={"s_rsp_event": 1})


def frontend_asks_for_what_never_comes(play):
    play.io()
    play.io(fe_push={"s_rsp_event": 9})


def frontend_keeps_its_event(play):
    for _ in range(3):
        play.io(wire.READ)
    drop(play, "ev_eoi", "guest1")


def backend_calls_work_spurious(play):
    play.io()
    play.io()
    last = [row for row in play.rows if row[0] == "ev_eoi" and row[2]["source"] == "dom0"][-1]
    last[2]["flags"] = SPURIOUS


def backend_keeps_its_event(play):
    for _ in range(5):
        play.io()
    drop(play, "ev_eoi", "dom0")


def backend_begins_elsewhere(play):
    play.io()
    change(play, "be_request", 0, rsp_prod_pvt=5, s_rsp_prod=5)


def scans_all_the_time(play):
    play.set(tsc_hz=1e9).io()
    for _ in range(3):
        play.purge([])


def failure_is_answered_as_success(play):
    play.set(bad_grefs={100}).io()
    change(play, "be_response", 0, status=0)


def failure_reaches_the_disk(play):
    io = play.set(bad_grefs={100}).push()
    play.take(io)
    play.map(io)
    after(play, "be_submit", ring=RING, id=io.id)
    play.respond(io)
    play.complete(io)


def what_was_never_mapped_is_unmapped(play):
    play.set(bad_grefs={100}).io()
    after(play, "gt_unmap", n=1, ops=(40 << 12, 0, 40 | 0xFFFD << 32))


def done_and_tried_again(play):
    play.set(back_keeps=False).io()
    item = next(row[2]["item"] for row in play.rows if row[0] == "gt_unmap_async")
    after(play, "gt_unmap_retry", item=item, n=2)


def another_status_arrives(play):
    play.io(fe_response={"status": -1})


def kept_grants_stay_mapped(play):
    play.io()
    play.close(skip={"gt_unmap", "gt_unmap_few", "gt_unmap_async", "xen_unmap", "be_free_persistent"})


def a_thread_ends_twice(play):
    play.io()
    after(play, "be_thread_stop", ring=RING)
    play.close()


def a_ring_is_mapped_twice(play):
    play.io()
    after(play, "gt_map_ring", node="backend/vbd/1/51712", n=1, gref=8)


def a_freed_ring_is_used(play):
    play.io()
    play.lose_ring()
    play.io()


def backend_remembers_what_it_had_agreed_on(play):
    play.set(front_offer=0, front_parameter="N").connect(be_connect={"persistent": 1})
    play.io()


def a_grant_is_ended_twice(play):
    play.io()
    play.close()
    end = next(n for n, row in enumerate(play.rows) if row[0] == "gt_end")
    name, tsc, fields = play.rows[end]
    play.rows.insert(end + 1, (name, tsc + 1, dict(fields)))


def a_request_in_flight_keeps_its_grants(play):
    play.push(nr=20)
    play.lose_ring()
    drop_one = next(n for n, row in enumerate(play.rows) if row[0] == "gt_end" and row[2]["ref"] == 110)
    del play.rows[drop_one]


BREACHES = [
    ("R25", event_index_of_the_frontend_stays, "asks to be notified of response 1"),
    ("R25", frontend_asks_for_what_never_comes, "asks to be notified of response 9"),
    ("R26", frontend_keeps_its_event, "does not let its event go"),
    ("R26", backend_calls_work_spurious, "the backend calls an event spurious that brought it 1 requests"),
    ("R26", backend_keeps_its_event, "the backend never lets an event go"),
    ("R27", backend_begins_elsewhere, "the backend begins with request 0 where rsp_prod is 5"),
    ("R45", scans_all_the_time, "scans its tree after 0.0 ms again"),
    ("R51", failure_is_answered_as_success, "the frontend is told that all went well"),
    ("R51", failure_reaches_the_disk, "it is handed to the disk"),
    ("R51", what_was_never_mapped_is_unmapped, "unmapped although mapping it had failed"),
    ("R55", done_and_tried_again, "2 pages are to be unmapped a second time"),
    ("R59", another_status_arrives, "status 0 is written, and -1 arrives"),
    ("R60", kept_grants_stay_mapped, "grant 100, which it kept, still mapped"),
    ("R60", a_thread_ends_twice, "the thread of a ring ends twice"),
    ("R61", a_ring_is_mapped_twice, "the ring in grant 8 is mapped again"),
    ("R62", a_freed_ring_is_used, "the frontend has freed its ring, and then pushes"),
    ("R64", backend_remembers_what_it_had_agreed_on, "connects with persistent = 1 where 0 was agreed on"),
    ("R65", a_grant_is_ended_twice, "grant 100 is ended twice"),
    ("R65", a_request_in_flight_keeps_its_grants, "grant 110 of request id 0 in flight is not ended"),
]


@pytest.mark.parametrize(
    ("name", "scene", "told"), BREACHES, ids=lambda value: getattr(value, "__name__", None)
)
def test_found(name, scene, told):
    play = Play()
    scene(play)
    play.close()
    findings = [f for f in judge(history.replay(play.table(), play.facts())).findings if f.rule == name]
    assert any(told in finding.text for finding in findings), [finding.text for finding in findings]


def test_a_backend_that_keeps_a_busy_ring_is_no_breach():
    """Linux closes a device with requests in flight, but keeps their ring until they are answered."""
    play = Play()
    io = play.push()
    play.take(io)
    play.map(io)
    play.close(skip={"gt_unmap", "gt_unmap_few", "gt_unmap_async", "xen_unmap", "be_free_persistent"})
    drop(play, "gt_unmap_ring", "dom0")
    findings = judge(history.replay(play.table(), play.facts())).findings
    assert not [finding for finding in findings if finding.rule == "R60"]
