"""Names, shares and outcomes of runs."""

from collections.abc import Callable

import pytest
from blkproof.analysis.report.model import Run, named, plural, share, visible, worst


def titles(*runs: Run) -> list[str]:
    return [run.title for run in named(runs)]


def test_runs_are_named_by_what_tells_them_apart(make_run: Callable[..., Run]) -> None:
    def run(scenario: str = "basic", **settings: str) -> Run:
        return make_run(info={"scenario": scenario, "settings": settings})

    assert titles(run(persistent="on", cap="9"), run(persistent="off", cap="9")) == [
        "persistent on",
        "persistent off",
    ]
    assert titles(run(persistent="on")) == ["basic"]
    assert titles(run(persistent="on"), run(persistent="on")) == ["basic #1", "basic #2"]
    assert titles(run(persistent="on"), run(persistent="off"), run("cap", persistent="off", cap="3")) == [
        "basic · persistent on",
        "basic · persistent off",
        "cap",
    ]
    assert titles() == []


@pytest.mark.parametrize(
    ("decided", "checked", "text"),
    [(0, 0, "—"), (5, 5, "100 %"), (99_999, 100_000, "99.99 %"), (1, 4, "25 %"), (0, 7, "0 %")],
)
def test_a_share_is_never_rounded_up_to_the_whole(decided: int, checked: int, text: str) -> None:
    assert share(decided, checked) == text.replace(" ", "\u00a0")


def test_the_worst_outcome_leads(make_run: Callable[..., Run], broken_run: Run) -> None:
    crashed, lost = make_run(info={"ended": "xen-panic"}), make_run(info={"ended": "harness"})
    assert worst([make_run(), lost, crashed, broken_run]) == "fail"
    assert worst([make_run(), lost, crashed]) == "crash"
    assert worst([make_run(), lost]) == "harness"
    assert worst([make_run()]) == "pass"
    assert worst([]) == "inconclusive"


def test_words() -> None:
    assert plural(1, "run") == "1 run"
    assert plural(1200, "run") == "1,200 runs"
    assert visible("a\x1b[2J\n·✓") == "a\\x1b[2J\n·✓"
