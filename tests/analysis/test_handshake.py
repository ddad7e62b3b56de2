"""What two drivers may do in xenstore and what not, beyond the two examples of each rule."""

from dataclasses import replace

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.handshake import BACK, FRONT, STATE, Step
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.stream import FOREVER, LossWindow


def judged(play):
    return judge(history.replay(play.table(), play.facts()))


def broken(play):
    return {(finding.rule, finding.level) for finding in judged(play.close()).findings}


LARGE = {"order": 1, "max_order": 4, "nr_ents": 64}

BROKEN = {
    "frontend connects before the backend": (lambda p: p.connect(late={"backend 4"}), "R1", "MUST"),
    "backend never waits": (lambda p: p.set(**LARGE).connect(skip={"backend 2"}), "R1", "MUST"),
    "no event channel": (lambda p: p.connect(skip={"event-channel"}), "R2", "MUST"),
    "request before state 4": (lambda p: p.connect(skip={"frontend 4"}).io(), "R2", "MUST"),
    "no size": (lambda p: p.connect(skip={"sectors"}), "R3", "MUST"),
    "ring-page-order is no number": (
        lambda p: p.set(**LARGE).connect({"ring-page-order": "two"}),
        "R4",
        "MUST",
    ),
    "ring-page-order 0 with ring-ref": (
        lambda p: p.write(Step("guest1", FRONT, "ring-page-order", 0, 5)).connect(),
        "R5",
        "LINUX",
    ),
    "backend reads the key of another kind of ring": (
        lambda p: (
            p.set(**LARGE)
            .connect(skip={"backend 4", "frontend 4"})
            .write(
                Step("dom0", f"error/{BACK}", "error", "22 reading /local/domain/1/device/vbd/51712/ring-ref")
            )
        ),
        "R5",
        "MUST",
    ),
    "one page twice": (lambda p: p.set(**LARGE).connect({"ring-ref1": 8}), "R5", "MUST"),
    "no queue at all": (
        lambda p: p.set(queues=2, max_queues=4).connect({"multi-queue-num-queues": 0}),
        "R7",
        "MUST",
    ),
    "queues without their number": (
        lambda p: p.set(queues=2, max_queues=4).connect(skip={"multi-queue-num-queues"}),
        "R7",
        "MUST",
    ),
    "no protocol": (lambda p: p.connect(skip={"protocol"}), "R8", "MUST"),
    "discard without its feature": (lambda p: p.set(discards=0).discard(), "R13", "MUST"),
    "secure discard without its feature": (lambda p: p.discard(flag=1), "R13", "MUST"),
    "sector-size 520": (lambda p: p.set(sector_size=520).connect(), "R14", "MUST"),
    "physical sectors smaller": (
        lambda p: p.set(sector_size=4096, physical_sector_size=512).connect(),
        "R14",
        "MUST",
    ),
    "disk ends inside a physical sector": (lambda p: p.set(capacity=1001).connect(), "R14", "QUAL"),
    "discard of half a sector": (lambda p: p.set(sector_size=4096).discard(4), "R15", "MUST"),
    "discard off the granularity": (
        lambda p: (p.set(physical_sector_size=8192).io(), p.discard()),
        "R15",
        "QUAL",
    ),
    "resized in two steps": (
        lambda p: (
            p.connect().write(Step("dom0", BACK, "sectors", 8, 11)).write(Step("dom0", BACK, STATE, 4, 12))
        ),
        "R16",
        "MUST",
    ),
    "frontend reconnects for a new size": (
        lambda p: p.connect().resize(4096).write(Step("guest1", FRONT, STATE, 3)),
        "R16",
        "MUST",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name):
    scene, rule, level = BROKEN[name]
    play = Play()
    scene(play)
    assert (rule, level) in broken(play)


KEPT = {
    "several rings of several pages": lambda p: p.set(queues=2, max_queues=4, **LARGE).io(),
    "ring-page-order 0 with ring-ref0": lambda p: (
        p.write(Step("guest1", FRONT, "ring-page-order", 0, 5)),
        p.write(Step("guest1", FRONT, "ring-ref0", 8, 5)).connect(),
    ),
    "flush taken back": lambda p: (
        p.connect().write(Step("dom0", BACK, "feature-flush-cache", 0)),
        p.io(wire.READ),
    ),
    "secure discard": lambda p: p.set(discard_secure=1).discard(flag=1),
    "partition of odd size in 512-byte sectors": lambda p: p.set(
        capacity=1001, physical_sector_size=512
    ).connect(),
    "discards but no hints": lambda p: p.connect(skip={"discard-granularity", "discard-alignment"}),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name):
    play = Play()
    KEPT[name](play)
    assert broken(play) == set()


def test_a_disk_that_the_toolstack_killed_begins_anew():
    """Neither driver wrote that it was over, and what the toolstack writes is not seen."""
    play = Play()
    play.connect()
    play.connect()
    play.io()
    assert not {rule for rule, _ in broken(play)} & {"R1", "R2", "R3", "R4", "R5", "R7", "R8", "R16"}


def test_a_frontend_that_nobody_knows_is_not_blamed():
    """A guest that was restored has another domid, and what it wrote may stand elsewhere."""
    play = Play()
    play.io()
    for row in play.close().rows:
        if row[2].get("dir") == BACK:
            row[2]["dir"] = "backend/vbd/2/51712"
    verdict = judged(play)
    assert not {finding.rule for finding in verdict.findings} & {"R1", "R2", "R3", "R4", "R5", "R7", "R8"}


def test_a_ring_may_be_smaller_after_the_disk_was_attached_again():
    """The toolstack has removed the keys of the first time, which is not recorded."""
    play = Play().set(**LARGE)
    play.connect()
    play.close()
    play.closed = False
    play.set(order=0, nr_ents=32).connect()
    play.io()
    assert not {rule for rule, _ in broken(play)} & {"R4", "R5", "R7"}


def test_a_flush_that_was_refused_is_not_tried_again():
    play = Play()
    play.io(wire.FLUSH, 0, be_response={"status": -2}, fe_response={"status": -2})
    play.io(wire.WRITE)
    assert not broken(play)
    play = Play()
    play.io(wire.FLUSH, 0, be_response={"status": -2}, fe_response={"status": -2})
    play.io(wire.FLUSH, 0)
    assert broken(play) == {("R13", "MUST")}


def test_a_kernel_that_does_not_know_trust_is_not_taken_for_one_that_trusts_nobody():
    play = Play().set(front_offer=0, front_parameter="N")
    play.io(wire.WRITE, fe_push={"copy": 0})
    play.close()
    for row in play.rows:
        if row[0] == "fe_connect":
            del row[2]["trusted"], row[2]["bounce"]
    table = replace(play.table(), missing={"guest1": {"fe_connect": ("trusted", "bounce")}})
    assert judge(history.replay(table, play.facts())).findings == ()


def test_a_read_stays_a_read():
    play = Play()
    play.io(wire.FLUSH, 1, fe_queue={"flags": 0})
    assert broken(play) == {("R13", "MUST")}


@pytest.mark.parametrize("name", BROKEN)
def test_lost_writes_blame_nobody(name):
    """With all of xenstore's writes lost but those that were seen, what is missing may have been written."""
    play = Play()
    BROKEN[name][0](play)
    for source in ("dom0", "guest1"):
        play.losses.append(LossWindow(source, -1, 0, FOREVER, 1, "literal", 0, "xs_write"))
    rule = BROKEN[name][1]
    verdict = judged(play.close())
    of_it = [finding for finding in verdict.findings if finding.rule == rule]
    certain = {"sector-size 520", "physical sectors smaller", "disk ends inside a physical sector"}
    certain |= {"discard of half a sector", "discard off the granularity"}
    assert bool(of_it) == (name in certain)
    assert verdict.outcome in ((Outcome.FAIL, Outcome.INCONCLUSIVE) if of_it else (Outcome.INCONCLUSIVE,))
