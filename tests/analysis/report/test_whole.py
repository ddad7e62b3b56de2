"""From a capture on disk, and from a played driver pair, all the way to the page."""

from pathlib import Path

from blkproof.analysis import wire
from blkproof.analysis.check import check, judge
from blkproof.analysis.history import replay
from blkproof.analysis.play import Play
from blkproof.analysis.report.collect import collect, features_of, quality_of, ring_at
from blkproof.analysis.report.html import render
from blkproof.analysis.report.model import Run
from blkproof.traces.capture import Capture
from blkproof.traces.table import EventTable

from tests.writers.capture_writer import write_capture


def played(play: Play) -> Run:
    play.close()
    table = play.table()
    verdict = judge(replay(table, play.facts()))
    rings = {index: ring for index, item in enumerate(verdict.findings) if (ring := ring_at(table, item))}
    info = {"scenario": "basic", "ended": "ok"}
    return Run("runs/1", info, verdict, quality_of(table), tuple(features_of(table)), rings)


def test_the_same_capture_gives_the_same_page(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture")
    pages = []
    for _ in range(2):
        capture = Capture.open(path)
        pages.append(render([collect(capture, EventTable.build(capture), check(capture), "capture")]))
    assert pages[0] == pages[1]
    assert "The run could not be decided" in pages[0]
    assert "dom0 be_request" in pages[0]
    assert str(tmp_path) not in pages[0]


def test_drivers_that_obey_give_a_page_without_findings() -> None:
    play = Play()
    for size in (1, 2, 11, 32):
        play.io(wire.WRITE, size, fe_queue={"persistent": 1})
    page = render([played(play)])
    assert "The run obeyed the protocol" in page
    assert "persistent grants <b>on</b>" in page
    assert "indirect segments <b>32</b>" in page
    assert "<article" not in page


def test_persistent_grants_mapped_read_only_are_explained_with_the_ring() -> None:
    play = Play().set(map_flags=6)
    play.io(wire.WRITE, 2)
    run = played(play)
    assert run.outcome == "fail"
    page = render([run])
    assert "The run broke the protocol" in page
    assert '<span class="fail">R40</span>' in page
    assert "<b>However</b>, the flags of" in page
    assert "slot offending" in page
