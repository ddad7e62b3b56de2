"""Reading what tracefs says about its own bytes: format files, header_page, stats and kprobe_profile.

References: Linux 6.1, kernel/trace/trace_events.c (f_show), kernel/trace/ring_buffer.c
(ring_buffer_print_page_header), kernel/trace/trace.c (tracing_stats_read), kernel/trace/trace_kprobe.c
(probes_profile_seq_show).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blkproof.traces.errors import ClockError, DecodeError, shown

_FIELD = re.compile(
    r"\s*field: ?(?P<type>[^;]*?)\s*\b(?P<name>\w+)(?:\[(?P<length>\d*)\])?;"
    r"\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);(?:\s*signed:(?P<signed>[01]);)?"
)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_STAT = re.compile(r"^(?P<name>[a-z ]+): (?P<count>\d+)$", re.MULTILINE)
_PROFILE = re.compile(r"^\s*(?:\w+/)?(?P<name>\w+)\s+(?P<hits>\d+)\s+(?P<missed>\d+)\s*$", re.MULTILINE)
_CLOCK = re.compile(r"\[(\S+)\]")
_BYTES = {f"{sign}{bits}": bits // 8 for sign in "us" for bits in (8, 16, 32, 64)}
"""Types of probes: bytes of one element."""
_LARGEST_PAGE_BYTES = 1 << 20
_ADVICE = "record it again"


@dataclass(frozen=True, slots=True)
class FormatField:
    """One field of a record: bytes ``offset`` to ``offset + size``, ``length`` elements (0 for a scalar).

    ``located`` marks a ``__data_loc`` word, which says where in the record a string is.
    """

    name: str
    offset: int
    size: int
    signed: bool
    length: int
    located: bool

    @property
    def element(self) -> int:
        """Return the bytes of one element, 0 when ``size`` is not made of whole ones."""
        length = max(self.length, 1)
        return 0 if self.size % length else self.size // length


@dataclass(frozen=True, slots=True)
class Format:
    """The record of one event: its number in ``common_type``, and its fields by name."""

    number: int
    group: str
    name: str
    fields: Mapping[str, FormatField]

    def joined(self, name: str) -> list[FormatField]:
        """Return the fields that hold ``name``: itself, or ``name0``, ``name1``, ... in their order."""
        if name in self.fields:
            return [self.fields[name]]
        parts: list[FormatField] = []
        while (number := f"{name}{len(parts)}") in self.fields:
            parts.append(self.fields[number])
        return parts


@dataclass(frozen=True, slots=True)
class PageHeader:
    """Sizes in bytes: where the events of a page start, and the whole page."""

    data_offset: int
    page_size: int


def parse_format(text: str, group: str, path: Path) -> Format:
    """Read the format file of the event that ``path`` is named after."""
    number = _ID.search(text)
    fields = {}
    for line in text.splitlines():
        if line.lstrip().startswith("field:"):
            field = _field(line, path)
            fields[field.name] = field
    if number is None or not fields:
        raise DecodeError(path, expected="a tracefs format file", got=shown(text[:80]), advice=_ADVICE)
    return Format(int(number[1]), group, path.name, fields)


def parse_header_page(text: str, path: Path) -> PageHeader:
    """Read header_page; only pages of a 64-bit kernel are known."""
    fields = {f.name: f for f in (_field(line, path) for line in text.splitlines() if line.strip())}
    match fields:
        case {
            "timestamp": FormatField(offset=0, size=8),
            "commit": FormatField(offset=8, size=8),
            "data": FormatField(offset=16 as offset, size=size),
        } if 0 < size <= _LARGEST_PAGE_BYTES and (offset + size) % 8 == 0:
            return PageHeader(offset, offset + size)
    raise DecodeError(path, expected="the page of a 64-bit kernel", got=shown(text[:80]), advice=_ADVICE)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a CPU's stats file counts: records recorded and kept, overwritten, and never written."""

    kept: int = 0
    overwritten: int = 0
    dropped: int = 0


def parse_stats(text: str) -> Stats:
    """Read a stats file; it may have been taken before or after the pages were read."""
    counts = {match["name"]: int(match["count"]) for match in _STAT.finditer(text)}
    return Stats(
        kept=counts.get("entries", 0) + counts.get("read events", 0),
        overwritten=counts.get("overrun", 0),
        dropped=counts.get("dropped events", 0) + counts.get("commit overrun", 0),
    )


def parse_missed(text: str) -> dict[str, int]:
    """Read kprobe_profile: ``{event: missed hits}`` for each probe that missed any."""
    return {m["name"]: int(m["missed"]) for m in _PROFILE.finditer(text) if int(m["missed"])}


def check_clock(text: str, path: Path, wanted: str) -> None:
    """Raise ClockError unless trace_clock says that ``wanted`` was chosen."""
    chosen = _CLOCK.search(text)
    if chosen is None or chosen[1] != wanted:
        raise ClockError(
            path,
            expected=f"the clock {wanted}",
            got=shown(chosen[1] if chosen else text[:80]),
            advice=f"choose {wanted} in trace_clock before arming and record again",
        )


def _field(line: str, path: Path) -> FormatField:
    match = _FIELD.match(line)
    if match is None:
        raise DecodeError(path, expected="a line that describes a field", got=shown(line), advice=_ADVICE)
    size = int(match["size"])
    located = match["type"].startswith("__data_loc")
    length = int(match["length"] or 0)
    if match["length"] == "" and not located:  # Linux 6.1 leaves out how long the arrays of probes are
        length = size // _BYTES.get(match["type"], size + 1)
    return FormatField(match["name"], int(match["offset"]), size, match["signed"] == "1", length, located)
