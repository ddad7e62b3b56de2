"""The register of rules: each is one decorated function in ``analysis/rules/``, and nothing else.

::

    @rule(
        id="R40", level="MUST", side="backend", source="blkif.h note 8; Linux xen_blkbk_map",
        obligation="...", needs={"be_map", "gt_map"},
        obeys=lambda play: play.io(WRITE), breaks=lambda play: play.io(WRITE, map_flags=6),
    )
    def map_flags(run: History, judge: Judge) -> None: ...

The function looks at the reconstructed history and tells the judge of every single thing that it checked.
``obeys`` and ``breaks`` are two tiny traces, played by :class:`blkproof.analysis.play.Play`.

What the protocol allows although it looks wrong is registered with :func:`legal`: its function only counts
how often that happened, and nothing can break it.  What no trace of ours can decide is registered with
:func:`undecidable`, with the reason: it is listed, and never judged.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from blkproof.analysis.errors import RuleDefinitionError
from blkproof.analysis.verdict import LEGAL, Level
from blkproof.traces.events import EVENTS

if TYPE_CHECKING:
    from blkproof.analysis.history import History
    from blkproof.analysis.judge import Judge
    from blkproof.analysis.play import Play

Side = Literal["frontend", "backend", "both"]
Check = Callable[["History", "Judge"], None]
Scene = Callable[["Play"], Any]

_ID = re.compile(r"R[1-9][0-9]?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the protocol.

    ``level`` says how much it binds (a finding may be of another level), ``side`` whom.  ``needs`` are the
    events without which nothing can be said, ``also`` those that it uses besides; ``obligation`` is what it
    demands, or allows, in one sentence.  ``undecidable`` says why no trace can decide it, or is empty.
    """

    id: str
    level: Level
    side: Side
    source: str
    obligation: str
    needs: frozenset[str]
    also: frozenset[str]
    obeys: Scene | None = None
    breaks: Scene | None = None
    check: Check | None = None
    undecidable: str = ""


_REGISTER: dict[str, Rule] = {}


def rule(
    *,
    id: str,  # noqa: A002 - the word that everybody uses for R40
    level: Level,
    side: Side,
    source: str,
    obligation: str,
    needs: Collection[str],
    also: Collection[str] = (),
    obeys: Scene,
    breaks: Scene,
) -> Callable[[Check], Check]:
    """Register the decorated function as the check of one rule; raise RuleDefinitionError for a bad one."""

    def register(check: Check) -> Check:
        used = frozenset(needs), frozenset(also)
        _add(Rule(id, level, side, source, obligation, *used, obeys, breaks, check))
        return check

    return register


def legal(
    *,
    id: str,  # noqa: A002 - the word that everybody uses for R40
    side: Side,
    source: str,
    obligation: str,
    needs: Collection[str],
    also: Collection[str] = (),
    obeys: Scene,
) -> Callable[[Check], Check]:
    """Register the decorated function as the count of something that is allowed; ``obeys`` plays it."""

    def register(check: Check) -> Check:
        used = frozenset(needs), frozenset(also)
        _add(Rule(id, LEGAL, side, source, obligation, *used, obeys, None, check))
        return check

    return register


def undecidable(*, id: str, level: Level, side: Side, source: str, obligation: str, reason: str) -> None:  # noqa: A002 - the word that everybody uses for R40
    """Register a rule that no trace of ours can decide, and why."""
    _add(Rule(id, level, side, source, obligation, frozenset(), frozenset(), undecidable=reason))


def _add(added: Rule) -> None:
    if not _ID.fullmatch(added.id):
        raise RuleDefinitionError(f"{added.id!r} is no id of a rule: write R1 to R99")
    if added.id in _REGISTER:
        raise RuleDefinitionError(f"{added.id} is registered twice: keep one of the two functions")
    if unknown := {*added.needs, *added.also} - EVENTS.keys():
        raise RuleDefinitionError(
            f"{added.id} needs {sorted(unknown)}, which are no events of traces/events.py"
        )
    _REGISTER[added.id] = added


class _Rules(Mapping[str, Rule]):
    """All rules by id in numerical order; the modules that hold them are imported at first use."""

    def _all(self) -> dict[str, Rule]:
        from blkproof.analysis import rules

        for module in pkgutil.iter_modules(rules.__path__):
            importlib.import_module(f"{rules.__name__}.{module.name}")
        return dict(sorted(_REGISTER.items(), key=lambda item: int(item[0][1:])))

    def __getitem__(self, name: str) -> Rule:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


RULES: Final[Mapping[str, Rule]] = _Rules()
"""Every rule by its id, in numerical order."""
