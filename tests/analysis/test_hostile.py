"""Whatever stands in the events, a guest may have written it: the analysis never breaks on it."""

import re

from blkproof.analysis import history
from blkproof.analysis.check import judge
from blkproof.analysis.explain import explain
from blkproof.analysis.play import RINFO, RING, Play
from blkproof.traces.events import EVENTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.histories import plays

PATHS = ["backend/vbd/1/51712", "device/vbd/51712", "device/vbd/51712/queue-0", "/", "\n"]
NODES = ["feature-persistent", "ring-ref", "ring-ref0", "ring-page-order", "sectors", "info", "x"]
ODD_TEXT = st.one_of(
    st.sampled_from(["0", "1", "4", "99999999999999999999", "-1", "¹", "\n\x1b[31m"]), st.text(max_size=5)
)


def values(dtype):
    if dtype == "str":
        return ODD_TEXT
    match = re.fullmatch(r"([us])(\d+)(?:\[(\d+)\])?", dtype)
    signed, bits, length = match[1] == "s", int(match[2]), int(match[3] or 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    number = st.one_of(st.integers(low, high), st.integers(0, 12), st.sampled_from([0, high]))
    return st.lists(number, max_size=min(length, 8)).map(tuple) if length else number


def fields(name):
    given_fields = {field.name: values(field.dtype) for field in EVENTS[name].fields}
    places = {"ring": st.just(RING), "rinfo": st.just(RINFO), "dir": st.sampled_from(PATHS)}
    places |= {
        "node": st.sampled_from(NODES),
        "pid": st.sampled_from([0, 700]),
        "cpu": st.sampled_from([0, 1]),
    }
    kept = {key: value for key, value in places.items() if key in given_fields or key in {"pid", "cpu"}}
    return st.fixed_dictionaries({**given_fields, **kept})


def events():
    return st.sampled_from(sorted(EVENTS)).flatmap(lambda name: st.tuples(st.just(name), fields(name)))


quick = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def judged(rows):
    return judge(
        history.replay(Play().set(rows=sorted(rows, key=lambda row: row[1])).table(), Play().facts())
    )


def unbroken(verdict):
    assert not any("itself failed" in reason for reason in verdict.reasons), verdict.reasons
    for finding in verdict.findings:
        assert "\x1b" not in explain(finding)
        assert "\n" not in finding.text


@quick
@given(st.lists(events(), max_size=60))
def test_nonsense(found):
    unbroken(judged([(name, 1000 + number, values) for number, (name, values) in enumerate(found)]))


@quick
@given(plays(), st.data())
def test_nonsense_amid_sense(play, data):
    rows = list(play.rows)
    for _ in range(data.draw(st.integers(1, 6))):
        number = data.draw(st.integers(0, len(rows) - 1)) if rows else 0
        name, changed = data.draw(events())
        if rows and rows[number][0] == name:
            rows[number] = (name, rows[number][1], {**rows[number][2], **changed})
        rows.append((name, data.draw(st.integers(0, play.tsc)), changed))
    unbroken(judged(rows))
