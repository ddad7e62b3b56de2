"""JUnit: one suite a run, one case a rule."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from blkproof.analysis.report.junit import write_junit
from blkproof.analysis.report.model import Run


def test_findings_fail_undecided_rules_are_skipped_and_crashes_are_errors(
    make_run: Callable[..., Run], broken_run: Run, tmp_path: Path
) -> None:
    write_junit([broken_run, make_run(info={"ended": "guest-panic"})], tmp_path / "out.xml")
    broken, crashed = ET.parse(tmp_path / "out.xml").getroot()
    assert [case.get("name") for case in broken] == ["run", "R9", "R21", "R52"]
    assert (broken.get("tests"), broken.get("failures"), broken.get("skipped")) == ("4", "1", "1")
    failure = broken.find("testcase[@name='R21']/failure")
    assert failure is not None
    assert failure.get("message") == "request 21 was answered twice"
    assert "However" in (failure.text or "")
    error = crashed.find("testcase[@name='run']/error")
    assert error is not None
    assert error.get("message") == "the run ended by: guest-panic"


def test_control_characters_make_no_broken_xml(make_run: Callable[..., Run], tmp_path: Path) -> None:
    write_junit([make_run(info={"scenario": "a\x00\x1b<b>"})], tmp_path / "out.xml")
    assert "a\\x00\\x1b<b>" in (ET.parse(tmp_path / "out.xml").getroot()[0].get("name") or "")
