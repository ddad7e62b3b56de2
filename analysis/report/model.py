"""What a report is made of: one :class:`Run` a scenario, with all that its pages and tables show.

Strings come from captures, and so from guests: whoever shows one escapes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from blkproof.analysis.report.ring_picture import RingMoment
from blkproof.analysis.verdict import FAILING, Finding, Outcome, Verdict

RunOutcome = Literal["pass", "fail", "inconclusive", "harness", "crash"]

OUTCOMES: Final[tuple[RunOutcome, ...]] = ("fail", "crash", "harness", "inconclusive", "pass")
"""How a run can end, worst first."""

CRASHES: Final = frozenset({"guest-panic", "dom0-panic", "xen-panic", "guest-oops", "dom0-oops"})
"""Ends of a run that are the fault of the system under test."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recorder: how many events it gave, how many it is known to have lost."""

    name: str
    events: int
    lost: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How much of the truth the trace holds."""

    sources: tuple[Source, ...] = ()
    armed: int | None = None
    missing: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """Records known to be lost, over all sources."""
        return sum(source.lost for source in self.sources)


@dataclass(frozen=True, slots=True)
class Feature:
    """One negotiated feature: what each side said, what was used, and how many events show it."""

    name: str
    backend: str
    frontend: str
    used: str
    evidence: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One capture and what was found in it.

    ``capture`` is the path to print, ``info`` the ``run`` part of the manifest.  ``features`` begin with
    persistent grants and indirect segments.  ``rings`` are pictured moments by the index of their
    finding.  ``title`` tells a run from the others in one report, see :func:`named`.
    """

    capture: str
    info: Mapping[str, Any]
    verdict: Verdict
    quality: Quality = Quality()
    features: tuple[Feature, ...] = ()
    rings: Mapping[int, RingMoment] = field(default_factory=dict)
    title: str = ""

    @property
    def scenario(self) -> str:
        """Name of the scenario."""
        return str(self.info.get("scenario", "unknown"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for with ``--set``."""
        return self.table("settings")

    def table(self, key: str) -> Mapping[str, Any]:
        """Give a table of the manifest's account, empty where it has none."""
        value = self.info.get(key)
        return value if isinstance(value, Mapping) else {}

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """What each driver other than the rebuilt was made of: ``source`` and ``patches``, or ``stock``."""
        variants = self.table("variants")
        return {name: made_of for name, made_of in variants.items() if isinstance(made_of, Mapping)}

    @property
    def drivers(self) -> str:
        """Name of other drivers than the rebuilt: stock, or patches and directories of the user's own."""
        names: list[str] = []
        for driver, made_of in sorted(self.variants.items()):
            if stock_of(made_of):
                names.append(f"stock {driver.replace('_', '-')}")
            if source := source_of(made_of):
                names.append(f"{driver.replace('_', '-')} of {source}")
            names += [str(patch.get("file")) for patch in patches_of(made_of)]
        return ", ".join(dict.fromkeys(names))

    @property
    def unusual(self) -> dict[str, str]:
        """The settings that are not at their defaults, as far as the manifest tells these."""
        defaults = self.table("defaults")
        return {key: str(value) for key, value in self.settings.items() if value != defaults.get(key, value)}

    @property
    def accelerator(self) -> str:
        """Name of QEMU's accelerator."""
        return str(self.table("accelerator").get("name", "unknown"))

    @property
    def why(self) -> str:
        """Why this accelerator was taken."""
        return str(self.table("accelerator").get("why", "not recorded"))

    @property
    def comparable(self) -> bool:
        """Whether wall time of this run may be compared with another's."""
        return self.accelerator == "kvm"

    @property
    def outcome(self) -> RunOutcome:
        """How the run ended: a broken rule stays one even when a crash followed."""
        if self.verdict.outcome is Outcome.FAIL:
            return "fail"
        ended = str(self.info.get("ended", "ok"))
        if ended in CRASHES:
            return "crash"
        if ended != "ok":
            return "harness"
        return "pass" if self.verdict.outcome is Outcome.PASS else "inconclusive"

    @property
    def carried_out(self) -> bool:
        """Whether the run took place; one that stalled did, and its driver may be why."""
        return self.outcome != "harness" or self.info.get("ended") == "stall"

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Findings that break the protocol; the others are remarks on quality."""
        return tuple(finding for finding in self.verdict.findings if finding.level in FAILING)

    @property
    def checked(self) -> int:
        """Checks that the rules had to make."""
        return sum(result.checked for result in self.verdict.rules.values())

    @property
    def decided(self) -> int:
        """Checks that could be decided."""
        return sum(result.decided for result in self.verdict.rules.values())


def source_of(made_of: Mapping[str, Any]) -> str:
    """Name the tree that a driver's source was taken from; empty where it is the image's."""
    source = made_of.get("source")
    if not isinstance(source, Mapping):
        return ""
    head = source.get("git")
    state = f" (git {str(head)[:12]}{', changed' if source.get('dirty') else ''})" if head else ""
    return f"{source.get('directory')}{state}"


def stock_of(made_of: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``build_id`` and ``sha256`` of a stock driver and how its twin ``differs``; empty for others."""
    stock = made_of.get("stock")
    return stock if isinstance(stock, Mapping) else {}


def patches_of(made_of: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the patches of a driver, each with its ``file``, ``subject`` and ``sha256``."""
    patches = made_of.get("patches")
    return [item for item in patches if isinstance(item, Mapping)] if isinstance(patches, list) else []


def named(runs: Sequence[Run]) -> list[Run]:
    """Title runs by scenario, and by settings and drivers in which its runs differ; a number if need be."""
    several = len({run.scenario for run in runs}) > 1
    titles = []
    for run in runs:
        parts = [f"{key} {run.settings[key]}" for key in differing(run, runs)]
        if len({other.drivers for other in runs}) > 1:
            parts.append(f"with {run.drivers}" if run.drivers else "without")
        titles.append(" · ".join([run.scenario, *parts] if several or not parts else parts))
    seen: Counter[str] = Counter()
    numbered = []
    for run, title in zip(runs, titles, strict=True):
        seen[title] += 1
        numbered.append(replace(run, title=f"{title} #{seen[title]}" if titles.count(title) > 1 else title))
    return numbered


def differing(run: Run, runs: Sequence[Run]) -> list[str]:
    """Return the settings in which the runs of a run's scenario differ."""
    same = [other.settings for other in runs if other.scenario == run.scenario]
    return [key for key in run.settings if len({str(other.get(key)) for other in same}) > 1]


def share(decided: int, checked: int) -> str:
    """Write a share, its sign on the same line; what is not whole is never rounded up to 100 %."""
    if checked == 0:
        return "—"
    if decided == checked:
        return "100\u00a0%"
    return f"{min(100 * decided / checked, 99.99):.2f}".removesuffix(".00") + "\u00a0%"


def plural(count: int, word: str) -> str:
    """Write ``1 run``, ``2 runs``, with thousands set apart."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def worst(runs: Sequence[Run]) -> RunOutcome:
    """Pick the worst outcome of several runs; no run at all decides nothing."""
    seen = {run.outcome for run in runs}
    return next((outcome for outcome in OUTCOMES if outcome in seen), "inconclusive")


def visible(words: str) -> str:
    """Replace what a terminal would obey and XML can't hold (control characters) by its escape."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii")
        for char in words
    )
