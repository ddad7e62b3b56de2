"""Events written out by hand, for the examples of rules and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from blkproof.traces.columns import KIND_CODE, Column, empty_payload
from blkproof.traces.events import BASE, EVENTS
from blkproof.traces.stream import Stream

FILE: Final = "literal"
_SOURCE: Final = {"backend": "dom0", "frontend": "guest1", "either": "dom0", "xen": "xen"}
_BASE_KEYS: Final = {field.name for field in BASE} - {"event", "tsc"}


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    tsc: int
    source: str
    file: str
    cpu: int
    pid: int
    offset: int
    fields: Mapping[str, Any]


def streams(rows: Iterable[tuple[str, int, Mapping[str, Any]]]) -> list[Stream]:
    """Return the literal events as streams, one per source and file."""
    groups: dict[tuple[str, str], list[_Row]] = {}
    literal = [_row(number, *row) for number, row in enumerate(rows)]
    for row in sorted(literal, key=lambda row: row.tsc):
        groups.setdefault((row.source, row.file), []).append(row)
    return [_stream(source, file, group) for (source, file), group in groups.items()]


def all_probes() -> dict[str, frozenset[str]]:
    """Return every event as armed, by the source that its origin implies."""
    armed: dict[str, set[str]] = {"dom0": set(), "guest1": set(), "xen": set()}
    for name, kind in EVENTS.items():
        armed[_SOURCE[kind.origin]].add(name)
        if kind.origin == "either":
            armed["guest1"].add(name)
    return {source: frozenset(names) for source, names in armed.items()}


def _row(number: int, name: str, tsc: int, values: Mapping[str, Any]) -> _Row:
    if name not in EVENTS:
        raise ValueError(f"event {number}: there is no event {name!r}")
    known = {field.name for field in EVENTS[name].fields}
    unknown = values.keys() - known - _BASE_KEYS
    if unknown:
        raise ValueError(f"event {number}: {name} has no {sorted(unknown)}; it has {sorted(known)}")
    xen = EVENTS[name].origin == "xen"
    return _Row(
        name,
        tsc,
        values.get("source", _SOURCE[EVENTS[name].origin]),
        values.get("file", FILE),
        values.get("cpu", 0),
        values.get("pid", -1 if xen else 1),
        values.get("offset", number),
        {key: value for key, value in values.items() if key in known},
    )


def _stream(source: str, file: str, rows: Sequence[_Row]) -> Stream:
    by_kind: dict[str, list[_Row]] = {}
    for row in rows:
        by_kind.setdefault(row.name, []).append(row)
    return Stream(
        source=source,
        file=file,
        kind=np.array([KIND_CODE[row.name] for row in rows], np.int16),
        tsc=np.array([row.tsc for row in rows], np.uint64),
        cpu=np.array([row.cpu for row in rows], np.int16),
        pid=np.array([row.pid for row in rows], np.int32),
        offset=np.array([row.offset for row in rows], np.uint64),
        payload={name: _payload(name, group) for name, group in by_kind.items()},
        counts={name: len(group) for name, group in by_kind.items()},
    )


def _payload(name: str, rows: Sequence[_Row]) -> dict[str, Column]:
    payload = empty_payload(EVENTS[name], len(rows))
    for number, row in enumerate(rows):
        for key, value in row.fields.items():
            column = payload[key]
            if column.ndim == 2:
                column[number, : len(value)] = value
            else:
                column[number] = value
    return payload
