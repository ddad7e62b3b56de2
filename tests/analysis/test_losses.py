"""Loss windows: found by source, overlap and kind, whatever their order."""

from blkproof.analysis.losses import NO_FILE, Losses, words
from blkproof.traces.stream import FOREVER, LossWindow
from hypothesis import given
from hypothesis import strategies as st


def window(begin, end, source="dom0", event=None, count=1):
    return LossWindow(source, -1, begin, end, count, "dom0/trace/cpu0.raw", 16, event)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))), st.integers(0, 50), st.integers(0, 50))
def test_overlap(spans, begin, length):
    windows = [window(min(span), max(span)) for span in spans]
    found = Losses(windows).between("dom0", begin, begin + length)
    assert (found is not None) == any(w.begin_tsc <= begin + length and w.end_tsc >= begin for w in windows)


def test_source_and_kind():
    losses = Losses([window(0, FOREVER, event="gt_map"), window(10, 20, source="guest1")])
    assert losses.between("dom0", 5, 5, frozenset({"gt_map"})) is not None
    assert losses.between("dom0", 5, 5, frozenset({"be_map"})) is None
    assert losses.between("dom0", 5, 5) is not None
    assert losses.between("guest1", 5, 5) is None
    assert losses.between("xen", 0, FOREVER) is None


def test_words():
    assert words(window(0, 1)) == "dom0 lost 1 records (dom0/trace/cpu0.raw @0x10)"
    assert words(window(0, 1, event="gt_map", count=None)).startswith("dom0 lost records of gt_map (")
    unarmed = LossWindow("dom0", -1, 0, FOREVER, None, NO_FILE, 0, "gt_map")
    assert words(unarmed) == "dom0 did not record gt_map"
