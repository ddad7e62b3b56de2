"""The judge of one rule: it counts what was checked and decided, and collects the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blkproof.analysis.losses import Losses, words
from blkproof.analysis.verdict import Bound, Finding, Level, RuleResult

if TYPE_CHECKING:
    from blkproof.analysis.registry import Rule

REASONS_SHOWN: Final = 5
"""Different reasons that a result lists; the rest is counted."""


class Judge:
    """Takes down, one call per thing checked, whether it holds, breaks the rule, or can't be decided."""

    def __init__(self, rule: Rule, losses: Losses) -> None:
        self.rule = rule
        self._used = rule.needs | rule.also
        self._losses = losses
        self._checked = 0
        self._decided = 0
        self._reasons: Counter[str] = Counter()
        self._findings: dict[str, Finding] = {}

    def holds(self, count: int = 1) -> None:
        """Take down that ``count`` things obey the rule."""
        self._checked += count
        self._decided += count

    def undecided(self, reason: str, count: int = 1) -> None:
        """Take down that ``count`` things could not be decided, and why."""
        self._checked += count
        if count:
            self._reasons[reason] += count

    def gap(self, source: str, begin: int, end: int, kinds: Collection[str] | None = None) -> str | None:
        """Return why events of ``source`` may be missing in a stretch of ticks, or None.

        Those that count are what the rule uses, or only ``kinds`` of them.
        """
        used = self._used if kinds is None else frozenset(kinds)
        window = self._losses.between(source, begin, end, used)
        return words(window) if window is not None else None

    def breaks(
        self,
        kind: str,
        text: str,
        *,
        bound: Sequence[Bound],
        because: Sequence[str],
        contradiction: str,
        level: Level | None = None,
    ) -> None:
        """Take down a breach; of those of the same ``kind`` the first is kept and the rest counted."""
        self._checked += 1
        self._decided += 1
        known = self._findings.get(kind)
        if known is not None:
            self._findings[kind] = replace(known, times=known.times + 1)
            return
        self._findings[kind] = Finding(
            rule=self.rule.id,
            level=level or self.rule.level,
            text=text,
            obligation=self.rule.obligation,
            bound=tuple(bound),
            because=tuple(because),
            contradiction=contradiction,
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, one of each kind, in the order of their first."""
        return tuple(self._findings.values())

    @property
    def result(self) -> RuleResult:
        """The counts, with the most frequent reasons first."""
        ordered = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))
        reasons = [f"{count} x {reason}" for reason, count in ordered[:REASONS_SHOWN]]
        if len(ordered) > REASONS_SHOWN:
            reasons.append(f"and {len(ordered) - REASONS_SHOWN} other reasons")
        return RuleResult(self.rule.id, self._checked, self._decided, tuple(reasons))
