"""Decoder of one domain's ftrace: raw ring-buffer pages and the format files beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from blkproof.traces import ftrace_layout as layout
from blkproof.traces.capture import Capture
from blkproof.traces.errors import DecodeError
from blkproof.traces.events import EVENTS
from blkproof.traces.ftrace_columns import MARK, Columns, lacking
from blkproof.traces.ftrace_format import (
    Format,
    PageHeader,
    Stats,
    check_clock,
    parse_format,
    parse_header_page,
    parse_missed,
    parse_stats,
)
from blkproof.traces.ftrace_pages import PAGES_AT_ONCE, Missed, Pages
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow, Stream

_RAW: Final = re.compile(r"\w+/trace/cpu(?P<cpu>\d{1,4})\.raw")
_STATS: Final = re.compile(r"\w+/trace/stats/cpu(?P<cpu>\d{1,4})")


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
    files: Mapping[int, str]


def decode(capture: Capture, domain: str) -> Domain:
    """Decode everything that ``domain`` recorded; raise CaptureError when it can't be evidence.

    Besides the result this takes a fixed amount of memory.
    """
    recording = _recording(capture, domain)
    armed = [f for f in recording.formats.values() if f.group == layout.GROUP and f.name in EVENTS]
    cpus = (_Cpu(recording, file, cpu) for cpu, file in recording.files.items())
    return Domain(
        tuple(cpu.decode(0, cpu.pages.count) for cpu in cpus),
        (*_missed_hits(capture, domain), *_missing_files(recording)),
        frozenset(f.name for f in armed) | {MARK},
        {f.name: fields for f in armed if (fields := lacking(f))},
    )


def batches(capture: Capture, domain: str, pages: int = PAGES_AT_ONCE) -> Iterator[Stream]:
    """Yield what :func:`decode` gives as streams, in parts of so many pages: for files larger than memory.

    The parts of one CPU follow one another.  DecodeError comes when the walk reaches the damage.
    """
    recording = _recording(capture, domain)
    for number, file in recording.files.items():
        cpu = _Cpu(recording, file, number)
        for first in range(0, max(cpu.pages.count, 1), pages):
            yield cpu.decode(first, min(first + pages, cpu.pages.count))


def _recording(capture: Capture, domain: str) -> _Recording:
    folder = f"{domain}/trace"
    path = capture.path / folder
    check_clock(capture.text(f"{folder}/trace_clock"), path / "trace_clock", layout.CLOCK)
    header = parse_header_page(capture.text(f"{folder}/header_page"), path / "header_page")
    formats = _formats(capture, folder)
    raw = [match for name in capture.below(folder) if (match := _RAW.fullmatch(name))]
    files = dict(sorted((int(match["cpu"]), match[0]) for match in raw))
    return _Recording(capture, domain, header, formats, files)


def _formats(capture: Capture, folder: str) -> dict[int, Format]:
    formats = {}
    for name in capture.below(f"{folder}/formats"):
        path = capture.path / name
        found = parse_format(capture.text(name), path.parent.name, path)
        for field in layout.ENTRY_FIELDS:
            if found.fields.get(field.name) != field:
                raise DecodeError(path, expected=f"{field.name} where Linux 6 has it", got="another record")
        formats[found.number] = _ours(found)
    return formats


def _ours(found: Format) -> Format:
    """Return a format under the names of the schema, if it is of an event that the kernel has by itself."""
    if (found.group, found.name) not in layout.STANDARD:
        return found
    name, fields = layout.STANDARD[found.group, found.name]
    named = {
        fields.get(key, key): replace(part, name=fields.get(key, key)) for key, part in found.fields.items()
    }
    return Format(found.number, layout.GROUP, name, named)


def _missed_hits(capture: Capture, domain: str) -> tuple[LossWindow, ...]:
    """Return the losses of probes that missed hits while the trace was on."""
    file = f"{domain}/trace/kprobe_profile"
    before, after = (
        parse_missed(capture.text(name)) if capture.has(name) else {} for name in (f"{file}.armed", file)
    )
    missed = {event: count - before.get(event, 0) for event, count in after.items() if event in EVENTS}
    return tuple(
        LossWindow(domain, EVERY_CPU, 0, FOREVER, count, file, 0, event)
        for event, count in missed.items()
        if count > 0
    )


class _Cpu:
    """The raw pages of one CPU, to be decoded in their order."""

    def __init__(self, recording: _Recording, file: str, cpu: int) -> None:
        self._recording, self._file, self._cpu = recording, file, cpu
        self._path = recording.capture.path / file
        self.pages = Pages(self._path, recording.header)
        self._last_tsc = 0
        self._records = 0
        self._missed: int | None = 0

    def decode(self, first: int, last: int) -> Stream:
        """Decode the pages from ``first`` to before ``last``; with the last of all come the final losses.

        They are walked twice, to count and to fill in: so columns are of the right size at once.
        """
        counted = np.zeros(layout.ENTRY_TYPE_MASK + 1, np.int64)
        missed: list[Missed] = []
        end_tsc = self._last_tsc
        for records in self.pages.records(first, last, self._last_tsc):
            counted += np.bincount(records.number, minlength=len(counted))
            missed += records.missed
            end_tsc = records.last_tsc
        numbers = {number: int(counted[number]) for number in np.flatnonzero(counted).tolist()}
        columns = Columns(self._path, self._recording.formats, numbers)
        for records in self.pages.records(first, last, self._last_tsc):
            columns.add(records)
        self._last_tsc = end_tsc
        self._records += sum(numbers.values())
        for one in missed:
            self._missed = None if self._missed is None or one.count is None else self._missed + one.count
        return Stream(
            source=self._recording.domain,
            file=self._file,
            kind=columns.kind,
            tsc=columns.tsc,
            cpu=np.full(len(columns.tsc), self._cpu, np.int16),
            pid=columns.pid,
            offset=columns.offset,
            payload=columns.payload,
            losses=(
                *(self._loss(one.begin_tsc, one.end_tsc, one.count, one.offset) for one in missed),
                *(self._end() if last == self.pages.count else ()),
            ),
            counts=columns.counts,
        )

    def _loss(self, begin: int, end: int, count: int | None, offset: int) -> LossWindow:
        return LossWindow(self._recording.domain, self._cpu, begin, end, count, self._file, offset)

    def _end(self) -> list[LossWindow]:
        """Return the losses that are known only after the last page.

        These are what a file that was cut off lacks, or what stats tell of but the pages don't.
        """
        if not self.pages.complete:
            return [self._loss(self._last_tsc, FOREVER, None, self.pages.end)]
        domain, capture = self._recording.domain, self._recording.capture
        file = f"{domain}/trace/stats/cpu{self._cpu}"
        stats = parse_stats(capture.text(file)) if capture.has(file) else Stats()
        count = stats.dropped + max(0, stats.kept - self._records)
        if self._missed is not None:
            count += max(0, stats.overwritten - self._missed)
        return [LossWindow(domain, self._cpu, 0, FOREVER, count, file, 0)] if count else []


def _missing_files(recording: _Recording) -> list[LossWindow]:
    """Return the losses of CPUs that recorded something which is not in the capture."""
    losses = []
    for file in recording.capture.below(f"{recording.domain}/trace/stats"):
        match = _STATS.fullmatch(file)
        stats = parse_stats(recording.capture.text(file))
        if match and int(match["cpu"]) not in recording.files and stats.kept:
            losses.append(LossWindow(recording.domain, int(match["cpu"]), 0, FOREVER, stats.kept, file, 0))
    return losses
