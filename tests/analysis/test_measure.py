"""Figures and curves of a play whose numbers are known."""

from dataclasses import replace

from blkproof.analysis import history, wire
from blkproof.analysis.measure import measure
from blkproof.analysis.metrics import STAGES, Metrics
from blkproof.analysis.play import Play


def measured():
    play = Play()
    play.io(wire.WRITE, 4)
    play.io(wire.READ, 20)
    play.io(wire.FLUSH, 0)
    play.rows += [
        ("mark", 1050, {"source": "guest1", "text": "blkproof:load"}),
        ("mark", 5050, {"source": "guest1", "text": "blkproof:loaded\n"}),
    ]
    facts = replace(play.close().facts(), tsc_hz=2e6)
    return measure(history.replay(play.table(), facts))


def test_figures():
    metrics = measured()
    assert (metrics.requests, metrics.reads, metrics.writes, metrics.flushes) == (3, 1, 1, 1)
    assert (metrics.indirect, metrics.segments, metrics.segments_per_request) == (1, {4: 1, 20: 1}, 12.0)
    assert (metrics.maps, metrics.unmaps) == (21, 21)
    assert (metrics.lookups, metrics.hits, metrics.tree_peak) == (25, 4, 21)
    assert metrics.maps_per_request == 7.0
    assert metrics.notifications == 6
    assert (metrics.window_ticks, metrics.window_seconds) == (4000, 0.002)


def test_curves():
    metrics = measured()
    assert list(metrics.tree.value) == list(range(22))
    assert (max(metrics.outstanding.value), metrics.outstanding.value[-1]) == (1, 0)
    assert list(metrics.outstanding.tsc) == sorted(metrics.outstanding.tsc)
    assert set(metrics.stages) == set(STAGES)
    for stage in zip(*(metrics.stages[name] for name in STAGES), strict=True):
        assert sum(stage[:-1]) == stage[-1]
        assert min(stage) >= 0


def test_nothing_measured_is_none_not_zero():
    empty = Metrics()
    assert empty.segments_per_request is None
    assert empty.maps_per_request is None
    assert empty.hit_share is None
    assert empty.to_json()["median_ticks"] == {}
