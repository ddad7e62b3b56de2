"""What the analysis says about one capture: findings, and for each rule how much of it was decided.

Three values, worst wins.  PASS needs that something was checked; whatever could not be seen (lost
records, a probe that was not armed, a rule that crashed) makes a verdict INCONCLUSIVE with the reason,
never PASS and never FAIL.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from blkproof.analysis.metrics import Metrics
from blkproof.traces.events import Event

Level = Literal["MUST", "SHOULD", "QUAL", "LINUX", "LEGAL"]
"""How much a rule binds: a violated MUST is a bug, LINUX is a MUST for the drivers of Linux alone; SHOULD is
advice, QUAL a remark on quality, and LEGAL looks wrong but is allowed."""

LEGAL: Final = "LEGAL"

FAILING: Final = frozenset({"MUST", "LINUX"})
"""Levels of findings that make a verdict FAIL."""


class Outcome(enum.Enum):
    """The three values of a verdict, from best to worst."""

    PASS = "pass"  # noqa: S105 - the value of a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Bound:
    """A name for one event in an explanation: ``label`` is ``R7``, ``what`` says what happened.

    ``fields`` are the values of the event that matter; the rest says where the record is: ``tsc`` in
    ticks, ``offset`` the byte of ``file`` (relative to the capture).
    """

    label: str
    what: str
    event: str
    tsc: int
    source: str
    cpu: int
    pid: int
    file: str
    offset: int

    @classmethod
    def to(cls, label: str, event: Event, what: str) -> Bound:
        """Bind ``label`` to ``event``."""
        return cls(
            label, what, event.event, event.tsc, event.source, event.cpu, event.pid, event.file, event.offset
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: the events in their order, why they belong together, and what does not fit.

    ``text`` is one line for a list; :func:`blkproof.analysis.explain.explain` tells the whole story.
    ``times`` counts the findings of the same kind, of which this one came first.
    """

    rule: str
    level: Level
    text: str
    obligation: str
    bound: tuple[Bound, ...]
    because: tuple[str, ...]
    contradiction: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class RuleResult:
    """How often a rule had to be checked, how often that could be decided, and why not always."""

    rule: str
    checked: int
    decided: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one capture; ``reasons`` say why it is not PASS, other than the findings.

    ``messages`` are what the kernels said of trouble, with what is known of the grants that they mean.
    """

    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    rules: Mapping[str, RuleResult] = field(default_factory=dict)
    requests: int = 0
    metrics: Metrics = field(default_factory=Metrics)
    reasons: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data for JSON, the same for the same capture."""
        return {
            "outcome": self.outcome.value,
            "findings": [asdict(finding) for finding in self.findings],
            "rules": {
                name: {"checked": r.checked, "decided": r.decided, "reasons": list(r.reasons)}
                for name, r in self.rules.items()
            },
            "requests": self.requests,
            "metrics": self.metrics.to_json(),
            "reasons": list(self.reasons),
            "messages": list(self.messages),
        }
