"""JUnit's XML, which CI systems show: one suite a run, one test case a rule.

A finding is a failure, a rule that could not be decided fully is skipped with the reasons, and a run
that did not end well is an error of its own test case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from blkproof.analysis.explain import explain
from blkproof.analysis.report.model import Run, named, visible
from blkproof.analysis.verdict import FAILING


def write_junit(runs: Sequence[Run], out: Path) -> None:
    """Write the results of these runs to a file."""
    root = ET.Element("testsuites", name="blkproof")
    for run in named(runs):
        root.append(_suite(run))
    ET.indent(root)
    out.write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _suite(run: Run) -> ET.Element:
    suite = ET.Element("testsuite", name=visible(f"{run.scenario}: {run.title}"))
    kind = f"blkproof.{visible(run.scenario)}"
    whole = ET.SubElement(suite, "testcase", classname=kind, name="run")
    if run.outcome in ("crash", "harness"):
        ET.SubElement(whole, "error", message=visible(f"the run ended by: {run.info.get('ended')}"))
    elif run.outcome == "inconclusive":
        ET.SubElement(whole, "skipped", message=visible("; ".join(run.verdict.reasons)))
    for rule, result in run.verdict.rules.items():
        case = ET.SubElement(suite, "testcase", classname=kind, name=rule)
        broken = [finding for finding in run.verdict.findings if finding.rule == rule]
        for finding in broken:
            if finding.level not in FAILING:
                continue
            failure = ET.SubElement(case, "failure", message=visible(finding.text), type=finding.level)
            failure.text = visible(explain(finding))
        if not broken and (result.decided < result.checked or not result.checked):
            ET.SubElement(
                case, "skipped", message=visible("; ".join(result.reasons) or "there was nothing to check")
            )
    for total, tag in (
        ("tests", "testcase"),
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ):
        suite.set(total, str(sum(1 for _ in suite.iter(tag))))
    return suite
