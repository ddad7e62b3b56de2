"""Reading ftrace's raw pages: where each record is, when it happened, and the numbers in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from blkproof.traces import ftrace_layout as layout
from blkproof.traces.errors import DecodeError
from blkproof.traces.ftrace_format import PageHeader
from blkproof.traces.jit import compiled

_WHOLE, _BAD_COMMIT, _LONG_EVENT, _SHORT_RECORD, _BAD_LENGTH = range(5)
_EXPECTED: Final = {
    _BAD_COMMIT: "a count of bytes that fits the page",
    _LONG_EVENT: "an event that ends inside its page",
    _SHORT_RECORD: "a record with type and pid",
    _BAD_LENGTH: "an event of whole words",
}
_RECORDS, _LOSSES = range(2)
_COMMIT: Final = layout.PAGE_COMMIT // layout.WORD_BYTES
_UNKNOWN: Final = 2**64 - 1
PAGES_AT_ONCE: Final = 1024
"""Pages whose records are found at a time: few enough for a processor's cache."""
_SMALLEST_RECORD_BYTES: Final = layout.WORD_BYTES * (1 + layout.ENTRY_WORDS)


@dataclass(frozen=True, slots=True)
class Missed:
    """Events overwritten before a page: after ``begin_tsc``, before ``end_tsc``; ``offset`` of the page."""

    begin_tsc: int
    end_tsc: int
    count: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Records:
    """The records of some pages of one CPU in their order.

    ``data`` are the bytes of the pages, which are those of the file from ``begin`` on.  ``entry`` is the word
    of ``data`` at which a record's entry starts, ``words`` how long that is.  ``last_tsc`` is the time at the
    end of the pages.
    """

    data: npt.NDArray[np.uint8]
    begin: int
    tsc: npt.NDArray[np.uint64]
    entry: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    missed: tuple[Missed, ...]
    last_tsc: int

    @property
    def number(self) -> npt.NDArray[np.uint16]:
        """The number of each record's event."""
        return self.data.view("<u2")[self.entry * 2]

    @property
    def pid(self) -> npt.NDArray[np.int32]:
        """The thread that recorded each."""
        return self.data.view("<i4")[self.entry + layout.ENTRY_PID_WORD]


class _Found(NamedTuple):
    """What the pass fills in.

    ``entries`` are the words at which records' entries start, ``lengths`` the words of these; ``losses`` has
    lines (time before, time after, count, word of the page).  ``made`` says how many of each are valid.
    """

    made: npt.NDArray[np.int64]
    times: npt.NDArray[np.uint64]
    entries: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    losses: npt.NDArray[np.uint64]


@compiled
def _at(words: Any, position: int) -> Any:
    """Return a word; an unsigned index spares numba's look at negative ones, here and below."""
    return np.int64(words[np.uint64(position)])


@compiled
def _time_word(words: Any, position: int) -> Any:
    return np.uint64(_at(words, position) >> layout.TIME_DELTA_SHIFT) | np.uint64(
        _at(words, position + 1)
    ) << np.uint64(layout.TIME_EXTEND_SHIFT)


@compiled
def _u64(words: Any, position: int) -> Any:
    return np.uint64(_at(words, position)) | np.uint64(_at(words, position + 1)) << np.uint64(32)


@compiled
def _absolute(stamp: Any, before: Any) -> Any:
    """Complete an absolute time by the high bits of the time before it."""
    high = before >> np.uint64(layout.ABSOLUTE_BITS) << np.uint64(layout.ABSOLUTE_BITS)
    whole = stamp & ((np.uint64(1) << np.uint64(layout.ABSOLUTE_BITS)) - np.uint64(1)) | high
    if high and whole < before:
        whole += np.uint64(1) << np.uint64(layout.ABSOLUTE_BITS)
    return whole


@compiled
def _event_words(words: Any, position: int, end: int) -> int:
    """Return how many words the event at ``position`` takes, or 0 when its length is broken."""
    word = _at(words, position)
    type_len = word & layout.TYPE_LEN_MASK
    if 0 < type_len <= layout.DATA_TYPE_LEN_MAX:
        return 1 + type_len  # type: ignore[no-any-return]  # an int to numba
    if type_len > layout.TYPE_PADDING:
        return 2
    if type_len == layout.TYPE_PADDING and word >> layout.TIME_DELTA_SHIFT == 0:
        return end - position
    if position + 1 >= end:
        return 2
    length = _at(words, position + 1)
    if length < layout.WORD_BYTES or length % layout.WORD_BYTES:
        return 0
    return 1 + length // layout.WORD_BYTES  # type: ignore[no-any-return]  # an int to numba


@compiled
def _page(words: Any, position: int, end: int, time: Any, found: Any) -> Any:
    """Walk the events of one page; return a status, the word where the walk ended and the time there."""
    times, entries, lengths = found.times, found.entries, found.lengths
    row = found.made[_RECORDS]
    status = _WHOLE
    while position < end:
        size = _event_words(words, position, end)
        if size == 0 or position + size > end:
            status = _LONG_EVENT if size else _BAD_LENGTH
            break
        word = _at(words, position)
        type_len, delta = word & layout.TYPE_LEN_MASK, np.uint64(word >> layout.TIME_DELTA_SHIFT)
        if type_len <= layout.DATA_TYPE_LEN_MAX:
            time += delta
            entry = position + 1 if type_len else position + 2
            if position + size - entry < layout.ENTRY_WORDS:
                status = _SHORT_RECORD
                break
            times[np.uint64(row)] = time
            entries[np.uint64(row)] = entry
            lengths[np.uint64(row)] = position + size - entry
            row += 1
        elif type_len == layout.TYPE_TIME_EXTEND:
            time += _time_word(words, position)
        elif type_len == layout.TYPE_TIME_STAMP:
            time = _absolute(_time_word(words, position), time)
        elif delta != layout.DISCARDED_DELTA:
            time += delta
        position += size
    found.made[_RECORDS] = row
    return status, position, time


@compiled
def _keep_loss(words: Any, first: int, end: int, before: Any, found: Any) -> None:
    """Note that the page at ``first``, whose events end at ``end``, says that events before it were lost."""
    count = np.uint64(_UNKNOWN)
    if words[first + _COMMIT] & layout.MISSED_STORED:
        count = _u64(words, end)
    row = found.made[_LOSSES]
    found.losses[row, 0] = before
    found.losses[row, 1] = _u64(words, first)
    found.losses[row, 2] = count
    found.losses[row, 3] = first
    found.made[_LOSSES] += 1


@compiled
def _scan(words: Any, shape: Any, time: Any, found: Any) -> Any:
    """Walk pages; ``time`` is that before the first.

    ``shape`` are the words of a page and the one of them where its events start.  Returns a status, the word
    where the walk ended and the time there.
    """
    for page in range(len(words) // shape[0]):
        first = page * shape[0]
        flags = words[first + _COMMIT]
        commit: Any = np.int64(flags & layout.COMMIT_MASK)
        begin = first + shape[1]
        end = begin + commit // layout.WORD_BYTES
        room = first + shape[0] - (2 if flags & layout.MISSED_STORED else 0)
        if end > room or commit % layout.WORD_BYTES or words[first + _COMMIT + 1]:
            return _BAD_COMMIT, first, time
        if flags & layout.MISSED_EVENTS:
            _keep_loss(words, first, end, time, found)
        time = _u64(words, first)
        status, position, time = _page(words, begin, end, time, found)
        if status != _WHOLE:
            return status, position, time
    return _WHOLE, len(words), time


class Pages:
    """The raw pages of one CPU, of which some at a time are in memory.

    ``count`` are its whole pages, ``end`` is the byte after them; ``complete`` is False when the file ends
    within a page.
    """

    def __init__(self, path: Path, header: PageHeader) -> None:
        size = path.stat().st_size
        self.count = size // header.page_size
        self.end = self.count * header.page_size
        self.complete = self.end == size
        self._path, self._header = path, header
        at_once = min(self.count, PAGES_AT_ONCE)
        most = at_once * (header.page_size // _SMALLEST_RECORD_BYTES)
        self._data = np.empty(at_once * header.page_size, np.uint8)
        self._found = _Found(
            made=np.zeros(2, np.int64),
            times=np.empty(most, np.uint64),  # the kernel gives memory only where something is written
            entries=np.empty(most, np.int64),
            lengths=np.empty(most, np.int64),
            losses=np.empty((at_once, 4), np.uint64),
        )

    def records(self, first: int, last: int, tsc: int) -> Iterator[Records]:
        """Yield the records from page ``first`` to before ``last``, of PAGES_AT_ONCE pages at a time.

        ``tsc`` is the time at the end of the page before.  What was yielded holds until the next; a page that
        breaks the format raises DecodeError with the byte.
        """
        shape = self._header.page_size // layout.WORD_BYTES, self._header.data_offset // layout.WORD_BYTES
        time = np.uint64(tsc)
        with self._path.open("rb", buffering=0) as opened:
            opened.seek(first * self._header.page_size)
            for page in range(first, last, PAGES_AT_ONCE):
                begin = page * self._header.page_size
                data = self._data[: min(PAGES_AT_ONCE, last - page) * self._header.page_size]
                self._fill(opened, data, begin)
                self._found.made[:] = 0
                status, stopped, time = _scan(data.view("<u4"), shape, time, self._found)
                if status != _WHOLE:
                    raise self._error(data, begin, stopped, _EXPECTED[status])
                yield self._records(data, begin, int(time))

    def _fill(self, opened: RawIOBase, data: npt.NDArray[np.uint8], begin: int) -> None:
        """Read the next pages; the kernel may give less than was asked for."""
        filled = 0
        while filled < len(data):
            read = opened.readinto(data.data[filled:])
            if not read:
                raise DecodeError(
                    self._path,
                    offset=begin + filled,
                    expected=f"{len(data) - filled} bytes more",
                    got="the end",
                    advice="do not write to a capture while it is read",
                )
            filled += read

    def _error(self, data: npt.NDArray[np.uint8], begin: int, word: int, expected: str) -> DecodeError:
        words = data.view("<u4")[word : word + 4]
        return DecodeError(
            self._path,
            offset=begin + word * layout.WORD_BYTES,
            expected=expected,
            got=" ".join(f"{word:#010x}" for word in words),
            advice="the file is damaged or not from trace_pipe_raw; record it again",
        )

    def _records(self, data: npt.NDArray[np.uint8], begin: int, time: int) -> Records:
        count, lost = self._found.made.tolist()
        return Records(
            data=data,
            begin=begin,
            tsc=self._found.times[:count],
            entry=self._found.entries[:count],
            words=self._found.lengths[:count],
            missed=tuple(
                Missed(before, after, None if count == _UNKNOWN else count, begin + page * layout.WORD_BYTES)
                for before, after, count, page in self._found.losses[:lost].tolist()
            ),
            last_tsc=time,
        )


@compiled
def _load(data: Any, at: int, width: int) -> Any:
    """Read an unsigned number of ``width`` bytes; unsigned indices spare numba's look at negative ones."""
    value = np.uint64(data[np.uint64(at)])
    if width == 1:
        return value
    value |= np.uint64(data[np.uint64(at + 1)]) << np.uint64(8)
    if width == 2:
        return value
    value |= np.uint64(data[np.uint64(at + 2)]) << np.uint64(16)
    value |= np.uint64(data[np.uint64(at + 3)]) << np.uint64(24)
    if width == 4:
        return value
    value |= np.uint64(data[np.uint64(at + 4)]) << np.uint64(32)
    value |= np.uint64(data[np.uint64(at + 5)]) << np.uint64(40)
    value |= np.uint64(data[np.uint64(at + 6)]) << np.uint64(48)
    return value | np.uint64(data[np.uint64(at + 7)]) << np.uint64(56)


@compiled
def take(data: Any, start: Any, offset: int, into: Any, columns: Any) -> None:
    """Read the numbers from byte ``offset`` on of each record that starts at ``start``.

    They go to the lines of ``into``, from the first of ``columns`` to before the second, and are as wide.
    """
    width = into.itemsize
    first, last = columns
    for line in range(len(start)):
        at = start[line] + offset
        # A width that the compiler knows makes one load of the bytes.
        if width == 8:
            for column in range(last - first):
                into[line, np.uint64(first + column)] = _load(data, at + 8 * column, 8)
        elif width == 4:
            for column in range(last - first):
                into[line, np.uint64(first + column)] = _load(data, at + 4 * column, 4)
        elif width == 2:
            for column in range(last - first):
                into[line, np.uint64(first + column)] = _load(data, at + 2 * column, 2)
        else:
            for column in range(last - first):
                into[line, np.uint64(first + column)] = data[np.uint64(at + column)]
