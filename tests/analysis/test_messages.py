"""What the kernels say of trouble: which grants it is about, and that it is never a PASS unexplained."""

import pytest
from blkproof.analysis import history, messages, wire
from blkproof.analysis.check import judge
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome


def saying(text, source="dom0", pid=700, play=None):
    play = play or Play()
    io = play.io(wire.WRITE)
    play.tsc += 1
    play.rows.append(("message", play.tsc, {"source": source, "pid": pid, "text": text}))
    play.close()
    return io, history.replay(play.table(), play.facts())


def test_a_deferred_grant_is_attributed_and_is_no_doubt():
    io, run = saying(
        "xen:grant_table: deferring g.e. 0x64 (pfn 0x1234) (total deferred 1, total leaked 0)\n", "guest1"
    )
    (message,) = messages.told(run)
    assert (message.rule, message.gref, message.harmless) == ("R49", 0x64, True)
    assert io.segments[0].gref == 0x64
    assert message.known[0] == "grant 100"
    assert message.known[1].startswith("given to domain 0 at tsc ")
    assert message.known[2] == "last used by request id 0 of device 51712, which is answered"
    assert message.known[3].startswith("kept in the backend's tree as handle 40 since tsc ")
    assert message.known[3].endswith("still mapped")
    verdict = judge(run)
    assert (verdict.outcome, verdict.reasons) == (Outcome.PASS, ())
    assert verdict.messages == (message.text,)
    assert verdict.to_json()["messages"] == [message.text]


@pytest.mark.parametrize(
    ("text", "source", "rule", "gref"),
    [
        ("xen-blkback: requesting a grant already in use\n", "dom0", "R47", 101),
        ("xen-blkback: trying to add a gref that's already in the tree\n", "dom0", "R42", 101),
        ("backed has not unmapped grant: 101\n", "guest1", "R41", 101),
        ("xen-blkback: Frontend provided bogus ring requests (9 - 1 = 8). Halting\n", "dom0", "R19", None),
        ("xvda: illegal number of responses 99\n", "guest1", "R20", None),
        ("xen:grant_table: leaking g.e. 0x65 (pfn 0x1)\n", "guest1", "R53", 101),
    ],
)
def test_trouble_that_no_event_shows_is_no_pass(text, source, rule, gref):
    _, run = saying(text, source)
    (message,) = messages.told(run)
    assert (message.rule, message.gref, message.harmless) == (rule, gref, False)
    verdict = judge(run)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons == (message.text,)
    assert f"({rule})" in message.text


def test_trouble_that_a_finding_explains_is_no_doubt():
    play = Play()
    play.io(wire.WRITE, be_response={"status": 9})
    _, run = saying("xvda: response has wrong operation (1 instead of 0)\n", "guest1", play=play)
    verdict = judge(run)
    assert verdict.outcome is Outcome.FAIL
    assert {finding.rule for finding in verdict.findings} >= {"R22"}
    assert not any("wrong operation" in reason for reason in verdict.reasons)
    assert len(verdict.messages) == 1


def test_a_grant_that_no_disk_used_is_told_as_such():
    _, run = saying("xen:grant_table: g.e. 0x3e8 still pending\n", "guest1")
    (message,) = messages.told(run)
    assert message.known == ("grant 1000", "no disk of this recording used it")


def test_floods_are_counted():
    play = Play()
    play.io(wire.WRITE)
    for _ in range(1000):
        play.tsc += 1
        play.rows.append(
            ("message", play.tsc, {"source": "guest1", "text": "xen:grant_table: g.e. 0x64 still pending"})
        )
    found = messages.told(history.replay(play.close().table(), play.facts()))
    assert len(found) == messages.SHOWN
    assert "(and 980 more of this kind)" in found[-1].text


def test_what_else_a_kernel_prints_is_nothing_to_us():
    _, run = saying("blkfront: xvda: flush diskcache: enabled; persistent grants: enabled;\n", "guest1")
    assert messages.told(run) == ()
    assert judge(run).messages == ()
