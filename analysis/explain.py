"""Turns a finding into the story that a person follows: Let ... because ... However ... a contradiction."""

from __future__ import annotations

from blkproof.analysis.verdict import Bound, Finding


def explain(finding: Finding) -> str:
    """Tell ``finding`` as an argument, one line per step; the last line is the contradiction."""
    lines = [f"{finding.rule} ({finding.level}): {finding.obligation}"]
    if finding.bound:
        lines += ["Let"] + [f"  {_let(bound)}" for bound in finding.bound]
    lines += [f"  - {reason}" for reason in finding.because]
    lines.append(f"  - However, {finding.contradiction}: a contradiction!")
    if finding.times > 1:
        lines.append(f"  ({finding.times} findings of this kind; this is the first.)")
    return "\n".join(lines)


def _let(bound: Bound) -> str:
    where = f"{bound.file} @{bound.offset:#x}"
    when = f"tsc {bound.tsc}, {bound.source} cpu {bound.cpu} pid {bound.pid}"
    return f"{bound.label} = {bound.what} ({bound.event}: {where}, {when})"
