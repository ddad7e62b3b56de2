"""The model of the persistent tree: what it knows, and what a purge or a gap makes it doubt."""

from types import SimpleNamespace

from blkproof.analysis.entities import Entry, Known
from blkproof.analysis.tree import Tree


def at(tsc):
    return SimpleNamespace(tsc=tsc)


def tree_of(*grefs):
    tree = Tree(at(10), 0)
    for number, gref in enumerate(grefs):
        tree.add(at(11 + number), Entry(gref, gref + 1000, None, True, at(0), None))
        tree.put(at(50 + number), gref)
    tree.resize(at(90), len(grefs))
    return tree


def known(tree, gref):
    return tree.seen(gref).known


def test_life_of_a_grant():
    tree = Tree(at(10), 0)
    assert known(tree, 5) is Known.ABSENT
    tree.add(at(11), Entry(5, 1005, None, True, at(0), None))
    assert known(tree, 5) is Known.BUSY
    tree.put(at(12), 5)
    assert known(tree, 5) is Known.FREE
    assert tree.seen(5).since == 12
    tree.remove(at(13), 5)
    assert known(tree, 5) is Known.ABSENT
    assert tree.seen(5).since == 13


def test_what_was_there_before_the_recording_is_unknown_until_it_is_seen():
    tree = Tree(at(10), 2)
    assert known(tree, 5) is Known.UNKNOWN
    tree.found(at(11), Entry(5, 1005, None, True, at(11), None))
    tree.resize(at(12), 2)
    assert (known(tree, 5), known(tree, 6)) == (Known.BUSY, Known.UNKNOWN)
    assert tree.drift is None


def test_an_empty_tree_is_known_whole():
    tree = Tree(at(10), None)
    assert known(tree, 5) is Known.UNKNOWN
    tree.resize(at(20), 0)
    assert known(tree, 5) is Known.ABSENT


def test_a_purge_that_took_nothing():
    tree = tree_of(1, 2)
    tree.scan()
    assert known(tree, 1) is Known.MAYBE
    tree.resize(at(100), 2)
    assert known(tree, 1) is Known.FREE


def test_a_purge_that_took_all_that_was_free():
    tree = tree_of(1, 2, 3)
    tree.found(at(95), tree.entry(3))
    tree.scan()
    tree.resize(at(100), 1)
    assert [known(tree, gref) for gref in (1, 2, 3)] == [Known.ABSENT, Known.ABSENT, Known.BUSY]


def test_a_purge_that_took_some_shows_when_they_are_missed_or_unmapped():
    tree = tree_of(1, 2, 3)
    tree.scan()
    tree.resize(at(100), 1)
    assert known(tree, 1) is Known.MAYBE
    assert tree.may_go(1)
    tree.missed(at(101), 1)
    tree.remove(at(102), 2)
    tree.resize(at(103), 1)
    assert [known(tree, gref) for gref in (1, 2, 3)] == [Known.ABSENT, Known.ABSENT, Known.FREE]
    assert tree.drift is None


def test_a_count_that_no_event_explains_makes_all_that_was_known_doubtful():
    tree = tree_of(1, 2)
    tree.resize(at(100), 1)
    assert tree.drift.tsc == 100
    assert (known(tree, 1), known(tree, 9)) == (Known.UNKNOWN, Known.UNKNOWN)
    tree.put(at(110), 1)
    assert known(tree, 1) is Known.FREE
