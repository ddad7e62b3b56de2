"""What no recorder looked for: events without a probe, or recorded without a field that matters.

What was not looked for did not "not happen".  A rule that can't do without such an event decides nothing;
for one that only uses it, the event counts as lost all the time.
"""

from __future__ import annotations

from blkproof.analysis.facts import BACKEND, Facts
from blkproof.analysis.losses import NO_FILE
from blkproof.analysis.registry import Rule
from blkproof.traces.events import EVENTS
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow
from blkproof.traces.table import EventTable

Blind = dict[str, dict[str, str]]
"""Why an event was not seen, by event and by the source that should have recorded it."""


def blind_spots(table: EventTable, facts: Facts) -> Blind:
    """Return every event that some source did not look for, and why."""
    guests = tuple(facts.domids)
    sources = {"backend": (BACKEND,), "frontend": guests, "either": (BACKEND, *guests), "xen": ("xen",)}
    found: Blind = {}
    for event, kind in EVENTS.items():
        for source in sources[kind.origin]:
            if why := _why(table, facts, source, event):
                found.setdefault(event, {})[source] = why
    return found


def _why(table: EventTable, facts: Facts, source: str, event: str) -> str | None:
    armed = table.probes.get(source)
    if not armed:
        return f"{source} left no trace"
    if event not in armed:
        why = facts.unseen.get(event, f"{len(armed)} others were armed")
        return f"{source} had no probe for it ({why})"
    if missing := table.missing.get(source, {}).get(event):
        return f"{source} recorded it without {', '.join(missing)}"
    return None


def as_losses(blind: Blind) -> tuple[LossWindow, ...]:
    """Return the blind spots as losses that last all the time."""
    return tuple(
        LossWindow(source, EVERY_CPU, 0, FOREVER, None, NO_FILE, 0, event)
        for event, sources in blind.items()
        for source in sources
    )


def forbids(blind: Blind, rule: Rule, facts: Facts) -> str | None:
    """Say why ``rule`` can't judge at all, or None: no source recorded an event that it needs."""
    for event in sorted(rule.needs):
        sources = blind.get(event, {})
        able = {"either": 1 + len(facts.domids), "frontend": len(facts.domids)}.get(EVENTS[event].origin, 1)
        if sources and len(sources) >= able:
            return f"{rule.id} needs {event}, but {next(iter(sources.values()))}"
        if not able:
            return f"{rule.id} needs {event}, but there is no guest"
    return None


def hampers(blind: Blind, rule: Rule) -> str | None:
    """Say what ``rule`` had to do without, or None."""
    for event in sorted(rule.needs | rule.also):
        for why in blind.get(event, {}).values():
            return f"{rule.id} had to do without {event}: {why}"
    return None
