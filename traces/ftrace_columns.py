"""Records of ftrace become columns, by what the format files say.

A field F of the schema is the record's field F, or its F0, F1, ... one after the other; F_plus is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from blkproof.traces import ftrace_layout as layout
from blkproof.traces.columns import KIND_CODE, Column, empty_payload, of_field
from blkproof.traces.errors import DecodeError
from blkproof.traces.events import EVENTS, Field
from blkproof.traces.ftrace_format import Format, FormatField
from blkproof.traces.ftrace_pages import Records, take
from blkproof.traces.text import printable

MARK: Final = "mark"
_NOT_OF_THE_SCHEMA: Final = -1
_Bytes = npt.NDArray[np.uint8]
_Rows = npt.NDArray[np.int64]


def lacking(found: Format) -> tuple[str, ...]:
    """Return the fields of the schema that records of ``found`` can't fill."""
    return tuple(f.name for f in EVENTS[found.name].fields if _lacks(f, found.joined(f.name)))


def name_of(number: int, found: Format | None) -> str:
    """Return the name under which records of an event's number are counted: of our own probes the event's."""
    if number == layout.PRINT_ID:
        return MARK
    if found is None:
        return f"event {number}"
    return found.name if found.group == layout.GROUP else f"{found.group}/{found.name}"


class Columns:
    """The columns of some pages of one CPU, made for records that were counted and filled in their order.

    ``counted`` are records by their event's number.
    """

    def __init__(self, path: Path, formats: Mapping[int, Format], counted: Mapping[int, int]) -> None:
        names = {number: name_of(number, formats.get(number)) for number in counted}
        self._kinds = {
            number: _Kind(path, name, None if name == MARK else formats.get(number), counted[number])
            for number, name in names.items()
            if name in EVENTS
        }
        self._codes = np.full(layout.ENTRY_TYPE_MASK + 1, _NOT_OF_THE_SCHEMA, np.int16)
        for number in self._kinds:
            self._codes[number] = KIND_CODE[names[number]]
        rows = sum(counted[number] for number in self._kinds)
        self._done = 0
        self.kind = np.empty(rows, np.int16)
        self.tsc = np.empty(rows, np.uint64)
        self.pid = np.empty(rows, np.int32)
        self.offset = np.empty(rows, np.uint64)
        self.counts: dict[str, int] = {}
        for number, name in names.items():
            self.counts[name] = self.counts.get(name, 0) + counted[number]

    @property
    def payload(self) -> dict[str, dict[str, Column]]:
        """Columns by event and field."""
        return {kind.name: kind.columns for kind in self._kinds.values()}

    def add(self, records: Records) -> None:
        """Fill in the next records."""
        number = records.number
        codes = self._codes[number]
        kept = np.flatnonzero(codes != _NOT_OF_THE_SCHEMA)
        rows = slice(self._done, self._done + len(kept))
        self._done = rows.stop
        self.kind[rows] = codes[kept]
        self.tsc[rows] = records.tsc[kept]
        self.pid[rows] = records.pid[kept]
        self.offset[rows] = records.entry[kept] * layout.WORD_BYTES + records.begin
        order = np.argsort(number, kind="stable")
        numbers, firsts = np.unique(number[order], return_index=True)
        for one, chosen in zip(numbers.tolist(), np.split(order, firsts)[1:], strict=True):
            if one in self._kinds:
                self._kinds[one].add(records, chosen)


class _Kind:
    """The columns of one kind of event; ``found`` is None for a mark, which is nothing but its text."""

    def __init__(self, path: Path, name: str, found: Format | None, lines: int) -> None:
        self.name = name
        self.columns = empty_payload(EVENTS[name], lines)
        self._path, self._done = path, 0
        fields = {field: found.joined(field.name) if found else [] for field in EVENTS[name].fields}
        # A list, and names as keys: these are looked up for every piece, and fields are slow to hash.
        self._fields = [(f, parts) for f, parts in fields.items() if found and not _lacks(f, parts)]
        self._plus = {f.name: part for f, _ in self._fields if found and (part := _plus(f, found))}
        used = [*(part for parts in fields.values() for part in parts), *self._plus.values()]
        ends = [part.offset + part.size for part in used]
        self._needs = max(ends, default=0) if found else layout.PRINT_TEXT
        self._is_mark = found is None

    def add(self, records: Records, chosen: _Rows) -> None:
        """Fill the next lines with the ``chosen`` of ``records``."""
        start = records.entry[chosen] * layout.WORD_BYTES
        length = records.words[chosen] * layout.WORD_BYTES
        if length.min() < self._needs:
            short = int(np.argmax(length < self._needs))
            raise DecodeError(
                self._path,
                offset=records.begin + int(start[short]),
                expected=f"{self._needs} bytes of {self.name}, as its format file says",
                got=f"{length[short]} bytes",
                advice="the format files are of another kernel or boot; record it again",
            )
        lines = slice(self._done, self._done + len(start))
        self._done = lines.stop
        if self._is_mark:
            self.columns["text"][lines] = _texts(records.data, start + layout.PRINT_TEXT, start + length)
        for field, parts in self._fields:
            column = self.columns[field.name][lines]
            if field.dtype == "str":
                column[:] = self._strings(records, start, length, parts[0])
            else:
                self._numbers(records.data, start, field, parts, column.reshape(len(start), -1))
            if part := self._plus.get(field.name):
                plus = np.empty((len(start), 1), np.uint64)
                take(records.data, start, part.offset, plus, (0, 1))
                column += plus[:, 0]

    def _numbers(
        self, data: _Bytes, start: _Rows, field: Field, parts: Sequence[FormatField], column: Column
    ) -> None:
        first = 0
        for part in parts:
            last = first + max(part.length, 1)
            if part.element == column.itemsize:
                take(data, start, part.offset, column.view(f"<u{part.element}"), (first, last))
            else:
                recorded = np.empty((len(start), last - first), f"<u{part.element}")
                take(data, start, part.offset, recorded, (0, last - first))
                column[:, first:last] = self._converted(recorded, field, part, column.dtype)
            first = last

    def _converted(
        self, recorded: Column, field: Field, part: FormatField, wanted: np.dtype[np.generic]
    ) -> Column:
        values = recorded.view(f"<{'i' if part.signed else 'u'}{part.element}")
        column: Column = values.astype(wanted)
        if not np.array_equal(column.astype(values.dtype), values):
            raise DecodeError(
                self._path,
                expected=f"values of {self.name}.{field.name} that fit {field.dtype}",
                got=f"values recorded as {values.dtype} that do not",
                advice="make the probe record it as the schema says",
            )
        return column

    def _strings(self, records: Records, start: _Rows, length: _Rows, part: FormatField) -> Column:
        located = np.empty((len(start), 1), "<u4")
        take(records.data, start, part.offset, located, (0, 1))
        begin = (located[:, 0] & layout.DATA_LOC_OFFSET_MASK).astype(np.int64)
        end = begin + (located[:, 0] >> layout.DATA_LOC_LENGTH_SHIFT)
        beyond = np.flatnonzero(end > length)
        if len(beyond):
            raise DecodeError(
                self._path,
                offset=records.begin + int(start[beyond[0]]),
                expected=f"a string {part.name} inside its record",
                got="one that ends beyond it",
                advice="the file is damaged; record it again",
            )
        return _texts(records.data, start + begin, start + end)


def _texts(data: _Bytes, begin: _Rows, end: _Rows) -> Column:
    texts = np.empty(len(begin), dtype=object)
    texts[:] = [
        printable(data[a:b].tobytes().partition(b"\0")[0].removesuffix(b"\n"))
        for a, b in zip(begin.tolist(), end.tolist(), strict=True)
    ]
    return texts


def _plus(field: Field, found: Format) -> FormatField | None:
    """Return what is to be added to a 64-bit field, as a number of as many bits."""
    part = found.fields.get(f"{field.name}{layout.PLUS}")
    fits = part is not None and not part.located and (part.size, part.length) == (8, 0)
    return part if fits and field.dtype == "u64" else None


def _lacks(field: Field, parts: Sequence[FormatField]) -> bool:
    """Tell whether the record's fields ``parts`` can't fill the schema's ``field``."""
    if field.dtype == "str":
        return [(part.located, part.size) for part in parts] != [(True, layout.WORD_BYTES)]
    if any(part.located or part.element not in layout.NUMBER_BYTES for part in parts):
        return True
    return sum(max(part.length, 1) for part in parts) != max(of_field(field).length, 1)
