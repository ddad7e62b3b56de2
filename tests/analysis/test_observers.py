"""What three observers counted, and which losses that takes back."""

import dataclasses

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.observers import observed
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.stream import FOREVER, LossWindow


def played(drop=None):
    play = Play()
    play.io(wire.WRITE, 3)
    play.io(wire.READ, 3)
    play.close()
    if drop is not None:
        number = next(number for number, row in enumerate(play.rows) if row[0] == drop)
        del play.rows[number]
    return play


def judged(play):
    return judge(history.replay(play.table(), play.facts()))


def test_xen_is_counted_only_while_the_backend_records():
    play = played()
    play.rows += [
        ("xen_map", 10, {"source": "xen", "pid": -1, "dom": 1}),
        ("mark", 20, {"source": "dom0", "text": "blkproof:armed"}),
        ("mark", play.tsc + 20, {"source": "dom0", "text": "blkproof:disarm"}),
        ("xen_unmap", play.tsc + 30, {"source": "xen", "pid": -1, "dom": 1}),
    ]
    assert judged(play).outcome is Outcome.PASS


def missed(kind):
    return LossWindow("dom0", -1, 0, FOREVER, 1, "dom0/trace/kprobe_profile", 0, kind)


def test_all_count_the_same():
    counts = {o.what: (o.frontend, o.backend, o.xen) for o in judged(played()).metrics.observed}
    assert counts == {
        "requests": (2, 2, None),
        "responses": (2, 2, None),
        "grants mapped": (None, 4, 4),
        "grants unmapped": (None, 4, 4),
    }


def test_a_ring_may_be_mapped_twice():
    """A backend that sees its frontend's state twice unmaps its ring and maps it again."""
    play = played()
    number = next(number for number, row in enumerate(play.rows) if row[0] == "gt_map_ring")
    ring, xen = play.rows[number : number + 2]
    again = [
        ("gt_unmap_ring", ring[1] + 1, {"source": "dom0", "node": ring[2]["node"]}),
        ("xen_unmap", ring[1] + 2, xen[2]),
        ("gt_map_ring", ring[1] + 3, ring[2]),
        ("xen_map", ring[1] + 4, xen[2]),
    ]
    play.rows += again
    verdict = judged(play)
    assert (verdict.outcome, verdict.reasons) == (Outcome.PASS, ())
    assert ("grants mapped", 5, 5) in {(o.what, o.backend, o.xen) for o in verdict.metrics.observed}
    play.rows.remove(again[2])
    assert "observers disagree" in judged(play).reasons[0]


def test_without_probes_for_rings_xen_is_not_contradicted():
    play = played(drop="gt_map_ring")
    table = play.table()
    probes = {source: names - {"gt_map_ring"} for source, names in table.probes.items()}
    run = history.replay(dataclasses.replace(table, probes=probes), play.facts())
    assert {o.what: o.backend for o in observed(run)}["grants mapped"] is None


@pytest.mark.parametrize("drop", ["xen_map", "xen_unmap"])
def test_a_disagreement_is_not_passed_over(drop):
    verdict = judged(played(drop))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "observers disagree" in verdict.reasons[0]


@pytest.mark.parametrize("kind", ["gt_map", "gt_unmap"])
def test_a_missed_probe_is_forgiven_when_xen_saw_no_more(kind):
    play = played()
    play.losses.append(missed(kind))
    assert judged(play).outcome is Outcome.PASS


@pytest.mark.parametrize("kind", ["gt_map", "gt_unmap"])
def test_a_missed_probe_is_not_forgiven_when_xen_saw_more(kind):
    play = played(drop=kind)
    play.losses.append(missed(kind))
    verdict = judged(play)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert any(f"dom0 lost 1 records of {kind}" in reason for reason in verdict.reasons)


def test_a_missed_probe_is_not_forgiven_when_xen_lost_records():
    play = played()
    play.losses += [missed("gt_map"), LossWindow("xen", 0, 0, FOREVER, 1, "xentrace.bin", 0)]
    assert judged(play).outcome is Outcome.INCONCLUSIVE
