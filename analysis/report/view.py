"""The words and numbers of the HTML page, as plain rows that the templates only lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from blkproof.analysis.metrics import Observed
from blkproof.analysis.registry import RULES
from blkproof.analysis.report import svg
from blkproof.analysis.report.model import OUTCOMES, Feature, Run, RunOutcome, plural, share, worst
from blkproof.analysis.report.ring_picture import ring_picture
from blkproof.analysis.verdict import FAILING, Bound

WORDS: Final[Mapping[RunOutcome, str]] = {
    "pass": "pass",
    "fail": "fail",
    "inconclusive": "inconclusive",
    "harness": "harness failed",
    "crash": "crashed",
}
MARKS: Final[Mapping[RunOutcome, str]] = {
    "pass": "✓",
    "fail": "✗",
    "inconclusive": "?",
    "harness": "!",
    "crash": "✗",
}
"""A mark beside each word, so that no verdict is told by colour alone."""

DEEDS: Final[Mapping[RunOutcome, str]] = {
    "fail": "broke the protocol",
    "crash": "crashed the system under test",
    "harness": "could not be carried out",
    "inconclusive": "could not be decided",
    "pass": "obeyed the protocol",
}
"""What a run did, for the headline."""

TOLD: Final = 3
"""Findings of one rule that are told in full, and rules that are told of one by one."""

Row = dict[str, Any]


def headline(runs: Sequence[Run]) -> str:
    """Say the verdict of all runs in one sentence; the worst outcome leads."""
    if not runs:
        return "Nothing was run"
    lead = worst(runs)
    total, led = len(runs), sum(run.outcome == lead for run in runs)
    if total == 1:
        return f"The run {DEEDS[lead]}"
    return f"{f'All {total}' if led == total else f'{led} of {total}'} runs {DEEDS[lead]}"


def lede(runs: Sequence[Run]) -> str:
    """Say what the headline rests on."""
    requests = sum(run.verdict.requests for run in runs)
    rules = {rule for run in runs for rule in run.verdict.rules}
    checked, decided = sum(run.checked for run in runs), sum(run.decided for run in runs)
    parts = [f"{plural(requests, 'block request')} checked against {plural(len(rules), 'rule')}"]
    if checked:
        parts.append(f"{share(decided, checked)} of {plural(checked, 'check')} decided")
    broken = sorted({item.rule for run in runs for item in run.broken}, key=rule_order)
    said = "; ".join(parts) + "."
    if broken:
        said += f" Broken: {', '.join(broken)}."
    count = Counter(run.outcome for run in runs)
    if len(count) > 1:
        said += " " + ", ".join(f"{count[kind]} {WORDS[kind]}" for kind in OUTCOMES if count[kind]) + "."
    return said


def rule_order(rule: str) -> tuple[str, int, str]:
    """Order rules as people count: R9 before R10."""
    letters = rule.rstrip("0123456789")
    digits = rule[len(letters) :]
    return letters, int(digits) if digits else 0, rule


def figures(runs: Sequence[Run]) -> list[Row]:
    """Pick the four numbers that stand above everything."""
    checked, decided = sum(run.checked for run in runs), sum(run.decided for run in runs)
    lost = sum(run.quality.lost for run in runs)
    found = sum(item.times for run in runs for item in run.broken)
    remarks = sum(item.times for run in runs for item in run.verdict.findings) - found
    events = sum(source.events for run in runs for source in run.quality.sources)
    rows: list[Row] = [
        {
            "name": "Requests",
            "value": f"{sum(run.verdict.requests for run in runs):,}",
            "note": "followed from queue to completion",
        },
        {"name": "Checks decided", "value": share(decided, checked), "note": f"{decided:,} of {checked:,}"},
        {"name": "Records lost", "value": f"{lost:,}", "note": f"{events:,} recorded"},
        {
            "name": "Findings",
            "value": f"{found:,}",
            "note": plural(remarks, "remark") + " on quality" if remarks else "obligations broken",
        },
    ]
    rows[2]["kind"] = "inconclusive" if lost else ""
    rows[3]["kind"] = "fail" if found else ""
    return [{"kind": "", **row} for row in rows]


def quality(runs: Sequence[Run]) -> Row:
    """Lay out the trace's quality: events by source, losses, probes, and the observers side by side."""
    names = list(dict.fromkeys(source.name for run in runs for source in run.quality.sources))
    observed = list(dict.fromkeys(item.what for run in runs for item in run.verdict.metrics.observed))
    rows = []
    for run in runs:
        events = {source.name: source.events for source in run.quality.sources}
        seen = {item.what: item for item in run.verdict.metrics.observed}
        rows.append(
            {
                "label": run.title,
                "events": [f"{events[name]:,}" if name in events else "—" for name in names],
                "lost": run.quality.lost,
                "lost_words": _losses(run),
                "armed": "—" if run.quality.armed is None else f"{run.quality.armed}",
                "missing": ", ".join(run.quality.missing) or ("—" if run.quality.armed is None else "none"),
                "cost": _cost(run),
                "observed": [_counts(seen[what]) if what in seen else None for what in observed],
            }
        )
    heads = [what[:1].upper() + what[1:] for what in observed]
    return {
        "names": names,
        "observed": heads,
        "rows": rows,
        "intervals": [row for run in runs for row in _intervals(run)],
        "sentence": _quality_sentence(runs),
    }


def _intervals(run: Run) -> list[Row]:
    """Lay out what the observers counted between two marks, where they counted anything."""
    return [
        {
            "label": run.title,
            "name": interval.name,
            "observed": [{"what": item.what, **_counts(item)} for item in interval.observed],
        }
        for interval in run.verdict.metrics.intervals
        if any(item.frontend or item.backend or item.xen for item in interval.observed)
    ]


def _cost(run: Run) -> str:
    """Say what tracing cost, or why that is not known."""
    cost = run.table("tracing_cost")
    numbers = [cost.get(key) for key in ("percent", "off", "on")]
    if not all(isinstance(number, int | float) for number in numbers):
        return str(cost.get("why", "not measured"))
    percent, off, on = numbers
    return f"{percent:+.1f} %: {on:,} {cost.get('unit', '')} in place of {off:,}"


def _losses(run: Run) -> str:
    lost = [f"{source.lost:,} {source.name}" for source in run.quality.sources if source.lost]
    return ", ".join(lost) or "0"


def _counts(item: Observed) -> Row:
    seen = (("frontend", item.frontend), ("backend", item.backend), ("Xen", item.xen))
    return {
        "agree": item.agree,
        "counts": [(who, f"{count:,}") for who, count in seen if count is not None],
    }


def _quality_sentence(runs: Sequence[Run]) -> str:
    lost = sum(run.quality.lost for run in runs)
    missing = sorted({probe for run in runs for probe in run.quality.missing})
    blind = sum(run.quality.armed is None for run in runs)
    all_counts = [item for run in runs for item in run.verdict.metrics.observed]
    all_counts += [item for run in runs for i in run.verdict.metrics.intervals for item in i.observed]
    differ = sum(not item.agree for item in all_counts)
    parts = [f"{plural(lost, 'record')} lost" if lost else "No record was lost"]
    if missing:
        parts.append(f"missing probes: {', '.join(missing)}")
    elif not blind:
        parts.append("every probe was armed")
    if blind:
        parts.append(f"{plural(blind, 'run')} left no trace at all")
    if any(run.verdict.metrics.observed for run in runs):
        parts.append(
            f"the observers differ in {plural(differ, 'count')}"
            if differ
            else "the observers agree on every count"
        )
    return "; ".join(parts) + "."


def matrix(runs: Sequence[Run]) -> list[Row]:
    """Lay out the feature matrix, one row a run."""
    rows = []
    for run in runs:
        metrics = run.verdict.metrics
        rows.append(
            {
                "title": run.title,
                "settings": " · ".join(
                    [
                        run.scenario,
                        *(f"{key} {value}" for key, value in run.settings.items()),
                        *([f"with {run.drivers}"] if run.drivers else []),
                    ]
                ),
                "features": run.features,
                "outcome": run.outcome,
                "requests": f"{run.verdict.requests:,}",
                "segments": ratio(metrics.segments_per_request),
                "maps": ratio(metrics.maps_per_request),
                "unmaps": ratio(metrics.unmaps_per_request),
                "iops": "—" if metrics.iops is None else f"{metrics.iops:,.0f}",
                "iops_note": iops_note(run),
            }
        )
    return rows


def negotiation(runs: Sequence[Run]) -> list[Row]:
    """Lay out how each feature was agreed; runs that agreed on the same share a row."""
    groups: dict[tuple[str, str, str, str], list[tuple[Run, Feature]]] = {}
    for run in runs:
        for item in run.features:
            key = (item.name, item.backend, item.frontend, item.used)
            groups.setdefault(key, []).append((run, item))
    order = list(dict.fromkeys(name for name, *_said in groups))
    rows = []
    for key, members in sorted(groups.items(), key=lambda group: order.index(group[0][0])):
        name, backend, frontend, used = key
        seen: Counter[str] = Counter()
        for _run, item in members:
            seen.update(item.evidence)
        labels = ["all runs"] if len(members) == len(runs) else [run.title for run, _item in members]
        rows.append(
            {
                "name": name,
                "labels": labels,
                "backend": backend,
                "frontend": frontend,
                "used": used,
                "seen": ", ".join(
                    ["xenstore writes", *(f"{count:,} {what}" for what, count in seen.items())]
                ),
            }
        )
    return rows


def iops_note(run: Run) -> str:
    """Say why the IOPS of a run compare with nothing, or nothing where they do."""
    if run.verdict.metrics.iops is None or run.comparable:
        return ""
    return f"not comparable: {run.accelerator.upper()}"


def ratio(value: float | None) -> str:
    """Write a number per request; what was not measured is a dash."""
    return "—" if value is None else f"{value:.3f}" if 0 < value < 0.1 else f"{value:.2f}"


def findings(runs: Sequence[Run], *, broken: bool) -> list[Row]:
    """Lay out the findings that break the protocol, or else the remarks on quality, of every run.

    Of one rule the first few are told in full, ``brief`` ones only by their line.
    """
    told: Counter[str] = Counter()
    rows = []
    for run in runs:
        for index, item in enumerate(run.verdict.findings):
            if (item.level in FAILING) != broken:
                continue
            told[item.rule] += 1
            brief = told[item.rule] > TOLD
            rows.append(
                {
                    "run": run.title,
                    "finding": item,
                    "bound": [{"of": bound, "where": where(bound)} for bound in item.bound],
                    "brief": brief,
                    "more": plural(item.times - 1, "more case") if item.times > 1 else "",
                    "picture": ring_picture(run.rings[index]) if index in run.rings and not brief else None,
                    "moment": run.rings[index].name if index in run.rings else "",
                }
            )
    return rows


def where(bound: Bound) -> str:
    """Cite the record of an event: its kind, recorder, file and byte, and its time."""
    when = f", tick {bound.tsc:,}" if bound.tsc else ""
    return f"{bound.event} of {bound.source}, {bound.file}@{bound.offset:#x}{when}"


def no_findings(runs: Sequence[Run]) -> str:
    """Say what the absence of findings means; where little was decided it means little."""
    if runs and all(run.outcome == "pass" for run in runs):
        return "No rule was broken in any run."
    return "No broken rule was seen, but not every run could be decided."


def undecided(runs: Sequence[Run]) -> list[Row]:
    """List why runs, as a whole, could not be decided or did not end well."""
    rows: list[Row] = []
    for run in runs:
        reasons = [*_ending(run), *run.verdict.reasons]
        by_rule = [reason for reason in reasons if reason.partition(" decided ")[0] in run.verdict.rules]
        if len(by_rule) > TOLD:
            few = f"{len(by_rule)} rules could not decide all: see the table of rules in the report"
            reasons = [*(reason for reason in reasons if reason not in by_rule), *_unseen(run), few]
        rows += [{"label": run.title, "reason": reason} for reason in dict.fromkeys(reasons)]
    return rows


def _ending(run: Run) -> list[str]:
    """Tell how a run ended that did not end well, with what the harness noted of it."""
    ended = str(run.info.get("ended", "ok"))
    notes = run.info.get("notes")
    told = [str(note) for note in notes] if isinstance(notes, list) else []
    return [] if ended == "ok" else ["; ".join([f"the run ended by: {ended}", *told])]


def _unseen(run: Run) -> list[str]:
    """Tell which events could not be recorded with the user's own drivers, and why."""
    missing = [str(reason) for reason in run.table("missing").values()]
    more = len(missing) - TOLD
    return [*missing[:TOLD], *([f"{plural(more, 'more probe')} that do not fit"] if more > 0 else [])]


def rules(runs: Sequence[Run]) -> list[Row]:
    """Sum every rule over all runs."""
    rows = []
    for rule in sorted({rule for run in runs for rule in run.verdict.rules}, key=rule_order):
        results = [run.verdict.rules[rule] for run in runs if rule in run.verdict.rules]
        checked, decided = sum(item.checked for item in results), sum(item.decided for item in results)
        known = RULES.get(rule)
        found = sum(item.times for run in runs for item in run.verdict.findings if item.rule == rule)
        rows.append(
            {
                "id": rule,
                "level": known.level if known else "",
                "obligation": known.obligation if known else "",
                "checked": f"{checked:,}",
                "decided": f"{decided:,}",
                "share": share(decided, checked),
                "short": decided < checked,
                "reasons": list(dict.fromkeys(reason for item in results for reason in item.reasons)),
                "findings": found,
                "strip": _strip(decided / checked if checked else 0.0),
            }
        )
    return rows


def _strip(part: float) -> str:
    return svg.tag(
        "svg",
        svg.tag("rect", width=100, height=4, class_="whole"),
        svg.tag("rect", width=100 * part, height=4, class_="part"),
        viewBox="0 0 100 4",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
