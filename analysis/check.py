"""From a capture to its verdict: replay once, let every rule judge, cross-check, measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from blkproof.analysis import crosscheck, measure, messages, observers
from blkproof.analysis.blindness import Blind, as_losses, blind_spots, forbids, hampers
from blkproof.analysis.facts import BACKEND, Facts
from blkproof.analysis.history import History, replay
from blkproof.analysis.judge import Judge
from blkproof.analysis.losses import Losses, words
from blkproof.analysis.registry import RULES, Rule
from blkproof.analysis.verdict import FAILING, LEGAL, Finding, Outcome, RuleResult, Verdict
from blkproof.traces.capture import Capture
from blkproof.traces.events import EVENTS
from blkproof.traces.table import EventTable

_Judged = tuple[RuleResult, tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class Examination:
    """A verdict together with the history that it is about."""

    verdict: Verdict
    history: History


def check(capture: Capture) -> Verdict:
    """Judge ``capture``; raise CaptureError when it can't be read."""
    return examine(capture).verdict


def examine(capture: Capture) -> Examination:
    """Judge ``capture`` and keep what was reconstructed for it."""
    history = replay(EventTable.build(capture), Facts.of(capture))
    return Examination(judge(history), history)


def judge(history: History) -> Verdict:
    """Let every rule judge ``history`` and draw them together; worst wins."""
    history = observers.acquit(history)
    blind = blind_spots(history.table, history.facts)
    losses = Losses((*history.lost, *as_losses(blind)))
    findings: list[Finding] = []
    results: dict[str, RuleResult] = {}
    judging = [rule for rule in RULES.values() if rule.check is not None]
    for rule in judging:
        result, found = _apply(rule, history, losses, blind)
        results[rule.id] = result
        findings += found
    metrics = measure.measure(history)
    told = messages.told(history)
    unexplained = messages.unexplained(told, {finding.rule for finding in findings})
    reasons = (*crosscheck.doubts(history, metrics), *unexplained, *_undecided(results.values()))
    if any(finding.level in FAILING for finding in findings):
        outcome = Outcome.FAIL
    elif not any(results[rule.id].decided for rule in judging if rule.level != LEGAL):
        outcome, reasons = Outcome.INCONCLUSIVE, ("nothing was checked: no request was recorded", *reasons)
    else:
        outcome = Outcome.INCONCLUSIVE if reasons else Outcome.PASS
    return Verdict(
        outcome,
        tuple(findings),
        results,
        metrics.requests,
        metrics,
        reasons,
        tuple(message.text for message in told),
    )


def _apply(rule: Rule, history: History, losses: Losses, blind: Blind) -> _Judged:
    """Let one rule judge; a rule that can't see what it needs, or crashes, decides nothing."""
    if reason := forbids(blind, rule, history.facts):
        return RuleResult(rule.id, 0, 0, (reason,)), ()
    judge = Judge(rule, losses)
    assert rule.check is not None
    try:  # whatever a rule does wrong must not pass for a verdict
        rule.check(history, judge)
    except Exception as error:
        reason = f"{rule.id} itself failed: {type(error).__name__}: {error}"
        return RuleResult(rule.id, judge.result.checked, 0, (reason,)), ()
    reasons = [*judge.result.reasons, *_lost(rule, history)]
    if reason := hampers(blind, rule):
        reasons.append(reason)
    return replace(judge.result, reasons=tuple(reasons)), judge.findings


def _lost(rule: Rule, history: History) -> tuple[str, ...]:
    """Say what was lost of the events that a rule uses: what they would have shown was not judged."""
    used = rule.needs | rule.also
    origins = {EVENTS[event].origin for event in used}
    of_back = bool(origins & {"backend", "either"})
    of_front = bool(origins & {"frontend", "either"})
    return tuple(
        words(window)
        for window in history.lost
        if (of_back if window.source == BACKEND else of_front and window.source in history.facts.domids)
        and (window.event is None or window.event in used)
        and window.begin_tsc <= history.end
        and window.end_tsc >= history.begin
    )


def _undecided(results: Iterable[RuleResult]) -> tuple[str, ...]:
    """Say for each rule that could not decide everything how much it did, and why."""
    return tuple(
        f"{result.rule} decided {result.decided} of {result.checked}: {'; '.join(result.reasons)}"
        for result in results
        if result.reasons
    )
