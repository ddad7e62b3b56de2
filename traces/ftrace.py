"""Decoder of one domain's ftrace: raw ring-buffer pages and the format files beside them.

Second pass: the records that :mod:`blkproof.traces.ftrace_pages` found become columns, one kind at a time.
A field F of the schema is the record's field F, or its F0, F1, ... one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from blkproof.traces import ftrace_layout as layout
from blkproof.traces.capture import Capture
from blkproof.traces.columns import KIND_CODE, Column, of_field
from blkproof.traces.errors import DecodeError
from blkproof.traces.events import EVENTS, Field
from blkproof.traces.ftrace_format import (
    Format,
    FormatField,
    PageHeader,
    Stats,
    check_clock,
    parse_format,
    parse_header_page,
    parse_missed,
    parse_stats,
)
from blkproof.traces.ftrace_pages import Records, find_records, gather
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow, Stream
from blkproof.traces.text import printable

_RAW: Final = re.compile(r"\w+/trace/cpu(?P<cpu>\d{1,4})\.raw")
_STATS: Final = re.compile(r"\w+/trace/stats/cpu(?P<cpu>\d{1,4})")
_MARK: Final = "mark"


@dataclass(frozen=True, slots=True)
class Domain:
    """What one domain recorded: a stream per CPU, armed events, and fields that its probes lack."""

    streams: tuple[Stream, ...]
    losses: tuple[LossWindow, ...]
    probes: frozenset[str]
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Recording:
    capture: Capture
    domain: str
    header: PageHeader
    formats: Mapping[int, Format]


def decode(capture: Capture, domain: str) -> Domain:
    """Decode everything that ``domain`` recorded; raise CaptureError when it can't be evidence."""
    folder = f"{domain}/trace"
    path = capture.path / folder
    check_clock(capture.text(f"{folder}/trace_clock"), path / "trace_clock", layout.CLOCK)
    header = parse_header_page(capture.text(f"{folder}/header_page"), path / "header_page")
    recording = _Recording(capture, domain, header, _formats(capture, folder))
    formats = recording.formats.values()
    armed = {f.name: f for f in formats if f.group == layout.GROUP and f.name in EVENTS}
    raw = [match for name in capture.below(folder) if (match := _RAW.fullmatch(name))]
    cpus = {int(match["cpu"]): match[0] for match in raw}
    return Domain(
        tuple(_decode_cpu(recording, file, cpu) for cpu, file in sorted(cpus.items())),
        (*_missed_hits(capture, domain, folder), *_missing_files(recording, cpus)),
        frozenset(armed) | {_MARK},
        {name: lacking for name, f in armed.items() if (lacking := _lacking(name, f))},
    )


def _formats(capture: Capture, folder: str) -> dict[int, Format]:
    formats = {}
    for name in capture.below(f"{folder}/formats"):
        path = capture.path / name
        found = parse_format(capture.text(name), path.parent.name, path)
        for field in layout.ENTRY_FIELDS:
            if found.fields.get(field.name) != field:
                raise DecodeError(path, expected=f"{field.name} where Linux 6 has it", got="another record")
        formats[found.number] = found
    return formats


def _missed_hits(capture: Capture, domain: str, folder: str) -> tuple[LossWindow, ...]:
    """Return the losses of probes that missed hits while the trace was on."""
    file = f"{folder}/kprobe_profile"
    before, after = (
        parse_missed(capture.text(name)) if capture.has(name) else {} for name in (f"{file}.armed", file)
    )
    missed = {event: count - before.get(event, 0) for event, count in after.items() if event in EVENTS}
    return tuple(
        LossWindow(domain, EVERY_CPU, 0, FOREVER, count, file, 0, event)
        for event, count in missed.items()
        if count > 0
    )


def _decode_cpu(recording: _Recording, file: str, cpu: int) -> Stream:
    path = recording.capture.path / file
    records = find_records(path, recording.header)
    kind = np.full(len(records.tsc), -1, np.int16)
    counts: dict[str, int] = {}
    payload: dict[str, dict[str, Column]] = {}
    for number in np.unique(records.number).tolist():
        rows = np.flatnonzero(records.number == number)
        found = recording.formats.get(number)
        name = _name(number, found)
        counts[name] = len(rows)
        if name in EVENTS:
            kind[rows] = KIND_CODE[name]
            payload[name] = _payload(path, records, rows, name, found)
    kept = np.flatnonzero(kind >= 0)
    return Stream(
        source=recording.domain,
        file=file,
        kind=kind[kept],
        tsc=records.tsc[kept],
        cpu=np.full(len(kept), cpu, np.int16),
        pid=records.pid[kept],
        offset=records.start[kept].astype(np.uint64),
        payload=payload,
        losses=_losses(recording, file, cpu, records),
        counts=counts,
    )


def _name(number: int, found: Format | None) -> str:
    if number == layout.PRINT_ID:
        return _MARK
    if found is None:
        return f"event {number}"
    return found.name if found.group == layout.GROUP else f"{found.group}/{found.name}"


def _payload(
    path: Path, records: Records, rows: npt.NDArray[np.int64], name: str, found: Format | None
) -> dict[str, Column]:
    if found is None or name == _MARK:
        return {"text": _texts(path, records, rows)}
    used = [part for field in EVENTS[name].fields for part in found.joined(field.name)]
    size = max((part.offset + part.size for part in used), default=0)
    short = rows[records.length[rows] < size]
    if len(short):
        raise DecodeError(
            path,
            offset=int(records.start[short[0]]),
            expected=f"{size} bytes of {name}, as its format file says",
            got=f"{records.length[short[0]]} bytes",
            advice="the format files are of another kernel or boot; record it again",
        )
    bodies = np.empty((len(rows), size), np.uint8)
    gather(records.data, records.start[rows], bodies)
    columns = {}
    for field in EVENTS[name].fields:
        parts = found.joined(field.name)
        if _lacks(field, parts):
            columns[field.name] = of_field(field).empty(len(rows))
        elif field.dtype == "str":
            columns[field.name] = _strings(path, records, rows, bodies, parts[0])
        else:
            columns[field.name] = _numbers(path, name, field, parts, bodies)
    return columns


def _lacking(name: str, found: Format) -> tuple[str, ...]:
    return tuple(f.name for f in EVENTS[name].fields if _lacks(f, found.joined(f.name)))


def _lacks(field: Field, parts: Sequence[FormatField]) -> bool:
    """Tell whether the record's fields ``parts`` can't fill the schema's ``field``."""
    if field.dtype == "str":
        return [(part.located, part.size) for part in parts] != [(True, layout.WORD_BYTES)]
    if any(part.located or part.element not in layout.NUMBER_BYTES for part in parts):
        return True
    return sum(max(part.length, 1) for part in parts) != max(of_field(field).length, 1)


def _numbers(
    path: Path, name: str, field: Field, parts: Sequence[FormatField], bodies: npt.NDArray[np.uint8]
) -> Column:
    wanted = of_field(field)
    columns = []
    for part in parts:
        recorded = f"<{'i' if part.signed else 'u'}{part.element}"
        raw = np.ascontiguousarray(bodies[:, part.offset : part.offset + part.size])
        columns.append(raw.view(recorded))
    joined = np.concatenate(columns, axis=1)
    column = joined.astype(wanted.dtype)
    if not np.array_equal(column.astype(joined.dtype), joined):
        raise DecodeError(
            path,
            expected=f"values of {name}.{field.name} that fit {field.dtype}",
            got=f"values recorded as {joined.dtype} that do not",
            advice="make the probe record it as the schema says",
        )
    return column if wanted.length else column[:, 0]


def _strings(
    path: Path,
    records: Records,
    rows: npt.NDArray[np.int64],
    bodies: npt.NDArray[np.uint8],
    part: FormatField,
) -> Column:
    located = np.ascontiguousarray(bodies[:, part.offset : part.offset + part.size]).view("<u4")[:, 0]
    begin = (located & layout.DATA_LOC_OFFSET_MASK).astype(np.int64)
    end = begin + (located >> layout.DATA_LOC_LENGTH_SHIFT)
    beyond = rows[end > records.length[rows]]
    if len(beyond):
        raise DecodeError(
            path,
            offset=int(records.start[beyond[0]]),
            expected=f"a string {part.name} inside its record",
            got="one that ends beyond it",
            advice="the file is damaged; record it again",
        )
    return _cut(records, records.start[rows] + begin, records.start[rows] + end)


def _texts(path: Path, records: Records, rows: npt.NDArray[np.int64]) -> Column:
    start, length = records.start[rows], records.length[rows]
    if len(rows) and length.min() < layout.PRINT_TEXT:
        raise DecodeError(
            path,
            offset=int(start[length.argmin()]),
            expected="the text of a mark",
            got=f"{length.min()} bytes",
            advice="the file is damaged; record it again",
        )
    return _cut(records, start + layout.PRINT_TEXT, start + length)


def _cut(records: Records, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Column:
    texts = np.empty(len(begin), dtype=object)
    texts[:] = [
        printable(records.data[a:b].tobytes().partition(b"\0")[0].removesuffix(b"\n"))
        for a, b in zip(begin.tolist(), end.tolist(), strict=True)
    ]
    return texts


def _losses(recording: _Recording, file: str, cpu: int, records: Records) -> tuple[LossWindow, ...]:
    domain = recording.domain
    losses = [
        LossWindow(domain, cpu, missed.begin_tsc, missed.end_tsc, missed.count, file, missed.offset)
        for missed in records.missed
    ]
    if not records.complete:
        losses.append(LossWindow(domain, cpu, records.last_tsc, FOREVER, None, file, records.end))
    if records.complete:
        losses += _unseen(recording, cpu, records)
    return tuple(losses)


def _unseen(recording: _Recording, cpu: int, records: Records) -> list[LossWindow]:
    """Return the loss, at an unknown time, that stats tell of but the pages do not."""
    file = f"{recording.domain}/trace/stats/cpu{cpu}"
    stats = parse_stats(recording.capture.text(file)) if recording.capture.has(file) else Stats()
    count = stats.dropped + max(0, stats.kept - len(records.tsc))
    if all(missed.count is not None for missed in records.missed):
        count += max(0, stats.overwritten - sum(missed.count or 0 for missed in records.missed))
    return [LossWindow(recording.domain, cpu, 0, FOREVER, count, file, 0)] if count else []


def _missing_files(recording: _Recording, cpus: Mapping[int, str]) -> list[LossWindow]:
    """Return the losses of CPUs that recorded something which is not in the capture."""
    losses = []
    for file in recording.capture.below(f"{recording.domain}/trace/stats"):
        match = _STATS.fullmatch(file)
        stats = parse_stats(recording.capture.text(file))
        if match and int(match["cpu"]) not in cpus and stats.kept:
            losses.append(LossWindow(recording.domain, int(match["cpu"]), 0, FOREVER, stats.kept, file, 0))
    return losses
