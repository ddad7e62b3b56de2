"""First pass over ftrace's raw pages: where each record is, and when it happened."""

from __future__ import annotations

from dataclasses import dataclass
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
    """All records of one CPU in their order.

    ``start`` is the byte in ``data`` at which a record's entry starts, ``length`` its bytes, ``number`` its
    event's number.  ``complete`` is False when the file ends within a page; ``end`` is the byte up to which
    it was read, ``last_tsc`` the time there.
    """

    data: npt.NDArray[np.uint8]
    tsc: npt.NDArray[np.uint64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    number: npt.NDArray[np.uint16]
    pid: npt.NDArray[np.int32]
    missed: tuple[Missed, ...]
    complete: bool
    end: int
    last_tsc: int


class _Found(NamedTuple):
    """What the pass fills in.

    ``places`` has lines (word of the entry, its words), ``losses`` lines (time before, time after, count,
    word of the page); ``made`` says how many of each are valid.
    """

    made: npt.NDArray[np.int64]
    times: npt.NDArray[np.uint64]
    places: npt.NDArray[np.int64]
    losses: npt.NDArray[np.uint64]


@compiled
def _time_word(words: Any, position: int) -> Any:
    return np.uint64(words[position]) >> np.uint64(layout.TIME_DELTA_SHIFT) | np.uint64(
        words[position + 1]
    ) << np.uint64(layout.TIME_EXTEND_SHIFT)


@compiled
def _u64(words: Any, position: int) -> Any:
    return np.uint64(words[position]) | np.uint64(words[position + 1]) << np.uint64(32)


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
    type_len = words[position] & layout.TYPE_LEN_MASK
    if type_len in (layout.TYPE_TIME_EXTEND, layout.TYPE_TIME_STAMP):
        return 2
    if 0 < type_len <= layout.DATA_TYPE_LEN_MAX:
        return 1 + np.int64(type_len)  # type: ignore[return-value]  # an int to numba
    if type_len == layout.TYPE_PADDING and words[position] >> layout.TIME_DELTA_SHIFT == 0:
        return end - position
    if position + 1 >= end:
        return 2
    length: Any = np.int64(words[position + 1])
    if length < layout.WORD_BYTES or length % layout.WORD_BYTES:
        return 0
    return 1 + length // layout.WORD_BYTES  # type: ignore[no-any-return]  # an int to numba


@compiled
def _page(words: Any, position: int, end: int, time: Any, found: Any) -> Any:
    """Walk the events of one page; return a status, the word where the walk ended and the time there."""
    made, times, places = found.made, found.times, found.places
    while position < end:
        size = _event_words(words, position, end)
        if size == 0:
            return _BAD_LENGTH, position, time
        if position + size > end:
            return _LONG_EVENT, position, time
        type_len = words[position] & layout.TYPE_LEN_MASK
        delta = np.uint64(words[position]) >> np.uint64(layout.TIME_DELTA_SHIFT)
        if type_len <= layout.DATA_TYPE_LEN_MAX:
            time += delta
            entry = position + 1 if type_len else position + 2
            if position + size - entry < layout.ENTRY_WORDS:
                return _SHORT_RECORD, position, time
            row = made[_RECORDS]
            times[row] = time
            places[row, 0] = entry
            places[row, 1] = position + size - entry
            made[_RECORDS] += 1
        elif type_len == layout.TYPE_TIME_EXTEND:
            time += _time_word(words, position)
        elif type_len == layout.TYPE_TIME_STAMP:
            time = _absolute(_time_word(words, position), time)
        elif delta != layout.DISCARDED_DELTA:
            time += delta
        position += size
    return _WHOLE, position, time


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
def _scan(words: Any, page_words: int, data_word: int, found: Any) -> Any:
    """Walk all whole pages; return a status, the word where the walk ended and the time there."""
    time = np.uint64(0)
    for page in range(len(words) // page_words):
        first = page * page_words
        flags = words[first + _COMMIT]
        commit: Any = np.int64(flags & layout.COMMIT_MASK)
        begin = first + data_word
        end = begin + commit // layout.WORD_BYTES
        room = first + page_words - (2 if flags & layout.MISSED_STORED else 0)
        if end > room or commit % layout.WORD_BYTES or words[first + _COMMIT + 1]:
            return _BAD_COMMIT, first, time
        if flags & layout.MISSED_EVENTS:
            _keep_loss(words, first, end, time, found)
        time = _u64(words, first)
        status, position, time = _page(words, begin, end, time, found)
        if status != _WHOLE:
            return status, position, time
    return _WHOLE, len(words) // page_words * page_words, time


def find_records(path: Path, header: PageHeader) -> Records:
    """Find all records in the raw pages of one CPU.

    A last page that was cut off is left out (``complete`` is False); a page that breaks the format raises
    DecodeError with the byte.
    """
    size = path.stat().st_size
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r")) if size else np.zeros(0, np.uint8)
    words = data[: size // header.page_size * header.page_size].view("<u4")
    pages = size // header.page_size
    most = pages * (header.page_size // _SMALLEST_RECORD_BYTES)
    found = _Found(
        made=np.zeros(2, np.int64),
        times=np.empty(most, np.uint64),  # the kernel gives memory only where something is written
        places=np.empty((most, 2), np.int64),
        losses=np.empty((pages, 4), np.uint64),
    )
    page_words, data_word = header.page_size // layout.WORD_BYTES, header.data_offset // layout.WORD_BYTES
    status, stopped, last = _scan(words, page_words, data_word, found)
    if status != _WHOLE:
        raise DecodeError(
            path,
            offset=stopped * layout.WORD_BYTES,
            expected=_EXPECTED[status],
            got=" ".join(f"{word:#010x}" for word in words[stopped : stopped + 4]),
            advice="the file is damaged or not from trace_pipe_raw; record it again",
        )
    count, lost = found.made.tolist()
    entry = found.places[:count, 0]
    return Records(
        data=data,
        tsc=found.times[:count],
        start=entry * layout.WORD_BYTES,
        length=found.places[:count, 1] * layout.WORD_BYTES,
        number=(words[entry] & layout.ENTRY_TYPE_MASK).astype(np.uint16),
        pid=words[entry + layout.ENTRY_PID_WORD].view(np.int32),
        missed=tuple(
            Missed(begin, end, None if missed == _UNKNOWN else missed, page * layout.WORD_BYTES)
            for begin, end, missed, page in found.losses[:lost].tolist()
        ),
        complete=size % header.page_size == 0,
        end=stopped * layout.WORD_BYTES,
        last_tsc=int(last),
    )


@compiled
def gather(data: Any, start: Any, into: Any) -> None:
    """Copy the bytes from each ``start`` on into the lines of ``into``."""
    for row in range(into.shape[0]):
        first = start[row]
        for byte in range(into.shape[1]):
            into[row, byte] = data[first + byte]
