"""Xen's own list of mapped grants: what ``xl debug-keys g`` prints on Xen's console.

References: Xen 4.17, xen/common/grant_table.c, gnttab_usage_print() and gnttab_usage_print_all().
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blkproof.traces.errors import DecodeError, shown

_BEGIN = re.compile(r"gnttab_usage_print_all \[")
_END = re.compile(r"gnttab_usage_print_all \] done")
_TABLE = re.compile(r"grant-table for remote d(\d+)")
_ENTRY = re.compile(
    r"\[0x(?P<ref>[0-9a-f]+)\]\s+(?P<mapper>\d+)\s+0x(?P<mfn>[0-9a-f]+)\s+0x(?P<pin>[0-9a-f]+)"
    r"\s+(?P<shared_dom>\d+)\s+0x(?P<gmfn>[0-9a-f]+)\s+0x(?P<flags>[0-9a-f]+)"
)


@dataclass(frozen=True, slots=True)
class ActiveGrant:
    """One grant that is mapped now.

    ``ref`` is the grant reference, ``mapper`` the domid that maps it, ``mfn`` the machine frame, ``pin``
    Xen's four 8-bit counters of mappings (from the low byte up: by a CPU writable and read-only, by a device
    writable and read-only), ``shared_dom``, ``gmfn`` and ``flags`` the granting guest's own entry.
    """

    ref: int
    mapper: int
    mfn: int
    pin: int
    shared_dom: int
    gmfn: int
    flags: int


@dataclass(frozen=True, slots=True)
class GrantDump:
    """Active grants by granting domid; ``complete`` when the dump was not cut off."""

    domains: Mapping[int, tuple[ActiveGrant, ...]]
    complete: bool

    def mapped_by(self, granter: int, mapper: int) -> tuple[ActiveGrant, ...]:
        """Return the grants of ``granter`` that ``mapper`` has mapped."""
        return tuple(g for g in self.domains.get(granter, ()) if g.mapper == mapper)


def parse_dump(text: str, path: Path) -> GrantDump:
    """Read the last dump in ``text``, lines of Xen's console; ``path`` is for the message."""
    begins = list(_BEGIN.finditer(text))
    if not begins:
        raise DecodeError(
            path,
            expected="what xl debug-keys g prints",
            got=shown(text[:80]),
            advice="look at consoles/xen.log",
        )
    domains: dict[int, list[ActiveGrant]] = {}
    current: list[ActiveGrant] | None = None
    for line in text[begins[-1].start() :].splitlines():
        if _END.search(line):
            return GrantDump({d: tuple(g) for d, g in domains.items()}, complete=True)
        if table := _TABLE.search(line):
            current = domains.setdefault(int(table[1]), [])
        elif (entry := _ENTRY.search(line)) and current is not None:
            decimal = {"mapper", "shared_dom"}
            values = {k: int(v, 10 if k in decimal else 16) for k, v in entry.groupdict().items()}
            current.append(ActiveGrant(**values))
    return GrantDump({d: tuple(g) for d, g in domains.items()}, complete=False)
