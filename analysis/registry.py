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
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from blkproof.analysis.errors import RuleDefinitionError
from blkproof.analysis.verdict import Level
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

    ``level`` says how much it binds (a finding may be of a milder level), ``side`` whom.  ``needs`` are the
    events without which nothing can be said, ``also`` those that it uses besides; ``obligation`` is what it
    demands, in one sentence.
    """

    id: str
    level: Level
    side: Side
    source: str
    obligation: str
    needs: frozenset[str]
    also: frozenset[str]
    obeys: Scene
    breaks: Scene
    check: Check


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
    if not _ID.fullmatch(id):
        raise RuleDefinitionError(f"{id!r} is no id of a rule: write R1 to R99")
    if id in _REGISTER:
        raise RuleDefinitionError(f"{id} is registered twice: keep one of the two functions")
    unknown = {*needs, *also} - EVENTS.keys()
    if unknown:
        raise RuleDefinitionError(f"{id} needs {sorted(unknown)}, which are no events of traces/events.py")

    def register(check: Check) -> Check:
        used = frozenset(needs), frozenset(also)
        _REGISTER[id] = Rule(id, level, side, source, obligation, *used, obeys, breaks, check)
        return check

    return register


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
