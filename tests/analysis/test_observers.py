"""What three observers counted, and which losses that takes back."""

import dataclasses

import pytest
from blkproof.analysis import history, wire
from blkproof.analysis.check import judge
from blkproof.analysis.observers import by_interval, observed
from blkproof.analysis.play import Play
from blkproof.analysis.verdict import Outcome
from blkproof.traces.gnttab import ActiveGrant, GrantDump
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
        "grants mapped": (4, 4, 4),
        "grants unmapped": (4, 4, 4),
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
    assert {o.what: o.backend for o in observed(run, by_interval(run))}["grants mapped"] is None


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


# Section: intervals between marks


def mark(play, text, tsc=None):
    play.rows.append(("mark", play.tsc + 1 if tsc is None else tsc, {"source": "dom0", "text": text}))
    play.tsc += 0 if tsc else 2


def marked(persistent=True):
    """Two requests while the load lasts, all else before and after."""
    play, switch = Play(), "Y" if persistent else "N"
    play.set(front_offer=int(persistent), back_offer=int(persistent))
    play.set(front_parameter=switch, back_parameter=switch)
    mark(play, "blkproof:armed")
    play.connect()
    mark(play, "blkproof:load")
    play.io(wire.WRITE, 3)
    play.io(wire.READ, 3)
    mark(play, "blkproof:loaded")
    mark(play, "blkproof:detach")
    play.close()
    mark(play, "blkproof:disarm")
    return play


def rows_of(play, name):
    return [row for row in play.rows if row[0] == name]


def counts(play):
    metrics = judged(play).metrics
    return {i.name: [(o.frontend, o.backend, o.xen) for o in i.observed] for i in metrics.intervals}


@pytest.mark.parametrize(("persistent", "maps", "unmaps"), [(True, 3, 0), (False, 6, 6)])
def test_each_interval_has_its_sums(persistent, maps, unmaps):
    play = marked(persistent)
    assert counts(play) == {
        "armed": [(1, 1, 1), (None, 0, 0)],
        "load": [(maps, maps, maps), (None, unmaps, unmaps)],
        "loaded": [(0, 0, 0), (None, 0, 0)],
        "detach": [(0, 0, 0), (None, 1 + maps - unmaps, 1 + maps - unmaps)],
    }
    verdict = judged(play)
    assert (verdict.outcome, verdict.reasons) == (Outcome.PASS, ())
    assert verdict.metrics.to_json()["intervals"][1]["from"] == "load"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("xen_map", "grants mapped from 'load' on: frontend 3, backend 3, Xen 2"),
        ("xen_unmap", "grants unmapped from 'detach' on: frontend None, backend 4, Xen 3"),
        ("gt_map", "grants mapped from 'load' on: frontend 3, backend 0, Xen 3"),
    ],
)
def test_a_disagreement_is_told_with_its_interval(name, says):
    play = marked()
    play.rows.remove(rows_of(play, name)[-1])
    reasons = judged(play).reasons
    assert any(says in reason for reason in reasons), reasons


def test_a_request_that_the_frontend_did_not_make_is_no_reason_to_map():
    play = marked(persistent=False)
    rows_of(play, "fe_push")[-1][2]["nr"] -= 1
    verdict = judged(play)
    assert verdict.outcome is not Outcome.PASS
    assert any("grants mapped from 'load' on: frontend 5, backend 6, Xen 6" in r for r in verdict.reasons)


def test_a_grant_that_the_backend_need_not_map_again_is_not_expected():
    """The second request finds what the first one mapped."""
    play = marked()
    assert len(rows_of(play, "be_get_ret")) == 6
    assert counts(play)["load"][0] == (3, 3, 3)


def test_what_is_on_its_way_at_a_mark_counts_where_the_kernel_tells_of_it():
    play = marked()
    told = rows_of(play, "gt_map")[0][1]
    play.rows.remove(next(row for row in rows_of(play, "mark") if row[2]["text"] == "blkproof:load"))
    mark(play, "blkproof:load", told - 1)  # Xen has recorded all three, the kernel none
    assert counts(play)["load"][0] == (3, 3, 3)
    assert judged(play).outcome is Outcome.PASS


def test_no_more_is_on_its_way_than_the_kernel_tells_of_next():
    play = marked()
    begin = next(row for row in rows_of(play, "mark") if row[2]["text"] == "blkproof:load")[1]
    play.rows += [("xen_map", begin - 1, {"source": "xen", "pid": -1, "dom": 1})] * 4
    assert counts(play)["armed"][0] == (1, 1, 5)
    assert counts(play)["load"][0] == (3, 3, 3)
    assert any("from 'armed' on" in reason for reason in judged(play).reasons)


# Section: Xen's own list


def with_lists(play, attached=(), detached=()):
    """Judge ``play`` with Xen's lists of these grants while attached, and after the detaching."""
    frames = {row[2]["ref"]: row[2].get("frame", 0) for row in rows_of(play, "gt_grant")}

    def dump(refs):
        grants = tuple(ActiveGrant(ref, 0, frames.get(ref, 0), 1, 0, 0, 0x19) for ref in refs)
        return GrantDump({1: grants}, complete=True)

    facts = dataclasses.replace(play.facts(), attached=dump(attached), detached=dump(detached))
    return judge(history.replay(play.table(), facts))


def granted(play):
    return [row[2]["ref"] for row in rows_of(play, "gt_grant")]


@pytest.mark.parametrize("persistent", [True, False])
def test_xen_lists_what_both_sides_hold(persistent):
    play = marked(persistent)
    ring, *data = granted(play)
    verdict = with_lists(play, [ring, *(data if persistent else [])])
    held = len(data) + 1 if persistent else 1
    counted = {o.what: (o.frontend, o.backend, o.xen) for o in verdict.metrics.observed}
    assert counted["grants mapped at rest"] == (held, held, held)
    assert counted["grants mapped after the detaching"] == (0, 0, 0)
    assert verdict.outcome is Outcome.PASS, verdict.reasons


@pytest.mark.parametrize(
    ("attached", "detached", "says"),
    [
        (slice(1, None), slice(0), "grants mapped at rest: frontend 4, backend 4, Xen 3"),
        (slice(None), slice(1, 2), "grants mapped after the detaching: frontend 0, backend 0, Xen 1"),
    ],
)
def test_a_list_that_disagrees_is_told(attached, detached, says):
    play = marked()
    verdict = with_lists(play, granted(play)[attached], granted(play)[detached])
    assert verdict.outcome is not Outcome.PASS
    assert any(says in reason for reason in verdict.reasons), verdict.reasons


def test_a_frontend_that_ended_a_grant_too_early_disagrees_with_xens_list():
    play = marked()
    loaded = next(row for row in rows_of(play, "mark") if row[2]["text"] == "blkproof:loaded")[1]
    ref = granted(play)[1]
    play.rows.append(("gt_put_free", loaded - 1, {"source": "guest1", "ref": ref}))
    verdict = with_lists(play, granted(play))
    assert any("at rest: frontend 3, backend 4, Xen 4" in reason for reason in verdict.reasons)


def test_a_tree_that_is_too_small_says_nothing_of_the_frontends_grants():
    play = Play().set(cap=1)
    mark(play, "blkproof:armed")
    play.io(wire.WRITE, 3)
    mark(play, "blkproof:loaded")
    mark(play, "blkproof:detach")
    play.close()
    mark(play, "blkproof:disarm")
    verdict = with_lists(play, [granted(play)[0], next(iter(r[2]["gref"] for r in rows_of(play, "be_add")))])
    rest = next(o for o in verdict.metrics.observed if o.what == "grants mapped at rest")
    assert (rest.frontend, rest.backend, rest.xen) == (None, 2, 2)
