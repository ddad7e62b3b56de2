"""Decoder of xentrace's binary output: one pass over the file, a piece of it in memory at a time.

Of all records only the mapping and unmapping of grants become events; every record is counted by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from blkproof.traces import xentrace_layout as layout
from blkproof.traces.columns import KIND_CODE
from blkproof.traces.errors import DecodeError
from blkproof.traces.jit import compiled
from blkproof.traces.stream import EVERY_CPU, FOREVER, LossWindow, Stream

SOURCE: Final = "xen"
PROBES: Final = frozenset({"xen_map", "xen_unmap"})
PIECE_WORDS: Final = 1 << 18
"""Words of the file that are in memory at a time."""

_WHOLE, _NO_WINDOW, _BAD_CPU, _BAD_SIZE, _LONG_RECORD, _BAD_RECORD = range(6)
_GRANTS, _LOSSES, _IDS, _UNCOUNTED = range(4)
_CPU, _LEFT = range(2)
_EXPECTED: Final = {
    _NO_WINDOW: "a CPU_CHANGE record",
    _BAD_CPU: f"a physical CPU below {layout.MAX_CPUS}",
    _BAD_SIZE: "a window of whole words",
    _LONG_RECORD: "a record that ends inside its window",
    _BAD_RECORD: "a well-formed grant or LOST_RECORDS record, or any other that windows hold",
}

_SLOTS: Final = 8192
"""Slots of the table that counts event ids, a power of two."""
_MAX_IDS: Final = 4096
"""Different ids that are counted one by one; a hostile file can't fill the table."""
_FREE: Final = 0xFFFFFFFF
_NO_DOMAIN: Final = 0xFFFFFFFF
_FIRST_BYTES: Final = 1 << 12
_TYPES: Final = (np.int16, np.uint64, np.int16, np.uint16, np.uint64)
# Compiled code keeps the constants that it was compiled with: those of the schema stay out of it.
_KINDS: Final = np.array([KIND_CODE["xen_map"], KIND_CODE["xen_unmap"]], np.int16)
_Grants = tuple[npt.NDArray[Any], ...]
"""Columns of grants: kind of event, TSC, CPU, domid and byte of the file."""


class _Found(NamedTuple):
    """What a pass over one piece fills in, and what it has to know of the pieces before.

    Of grants there are columns, ``unmap`` (1, or 0 for a map), ``tsc``, ``cpu``, ``dom`` and ``word``, of
    losses lines (CPU, first TSC, TSC, count, word).  ``made`` says how many of each are valid.  ``hits``
    counts the event ids of ``ids``.  ``window`` is the CPU of the window that is open and how many words are
    left of it.
    """

    made: npt.NDArray[np.int64]
    unmap: npt.NDArray[np.uint8]
    tsc: npt.NDArray[np.uint64]
    cpu: npt.NDArray[np.int16]
    dom: npt.NDArray[np.uint16]
    word: npt.NDArray[np.uint64]
    losses: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.uint32]
    hits: npt.NDArray[np.int64]
    last_tsc: npt.NDArray[np.uint64]
    window: npt.NDArray[np.int64]


@compiled
def _tsc_at(words: Any, position: int) -> Any:
    return np.uint64(words[position]) | np.uint64(words[position + 1]) << np.uint64(32)


@compiled
def _slot(event: int, ids: Any) -> int:
    """Find where ``event`` is counted, or the free slot for it."""
    slot = (event ^ (event >> 12) ^ (event >> 16)) & (_SLOTS - 1)
    while ids[slot] != event and ids[slot] != _FREE:
        slot = (slot + 1) & (_SLOTS - 1)
    return slot


@compiled
def _keep_id(event: int, slot: int, found: Any) -> None:
    """Start to count ``event`` in its free slot, while there is room."""
    if found.made[_IDS] < _MAX_IDS:
        found.made[_IDS] += 1
        found.ids[slot] = event
        found.hits[slot] = 1
    else:
        found.made[_UNCOUNTED] += 1


@compiled
def _keep_grant(words: Any, position: int, cpu: int, found: Any) -> int:
    header = words[position]
    unmap = header == layout.GRANT_UNMAP_HEADER
    dom = words[position + layout.GRANT_DOM] if unmap or header == layout.GRANT_MAP_HEADER else _NO_DOMAIN
    if dom > layout.MAX_DOMID:
        return _BAD_RECORD
    row = found.made[_GRANTS]
    found.unmap[row] = unmap
    found.tsc[row] = _tsc_at(words, position + 1)
    found.cpu[row] = cpu
    found.dom[row] = dom
    found.word[row] = position
    found.made[_GRANTS] = row + 1
    return _WHOLE


@compiled
def _keep_loss(words: Any, position: int, cpu: int, losses: Any, row: int) -> int:
    if words[position] != layout.LOST_RECORDS_HEADER:
        return _BAD_RECORD
    losses[row, 0] = cpu
    losses[row, 1] = _tsc_at(words, position + layout.LOST_FIRST_TSC)
    losses[row, 2] = _tsc_at(words, position + 1)
    losses[row, 3] = words[position + layout.LOST_COUNT]
    losses[row, 4] = position
    return _WHOLE


@compiled
def _records(words: Any, position: int, stop: int, cpu: int, found: Any) -> tuple[int, int]:
    """Walk the records of one window up to ``stop``; return a status and the word where the walk ended.

    The walk ends before a record that goes beyond ``stop``.
    """
    ids, hits, made = found.ids, found.hits, found.made
    timed = -1
    status = _WHOLE
    while position < stop:
        header: Any = np.int64(words[np.uint64(position)])
        has_tsc = header >> layout.TSC_SHIFT
        extra = header >> layout.EXTRA_SHIFT & layout.EXTRA_MASK
        following = position + 1 + layout.TSC_WORDS * has_tsc + extra
        if following > stop:
            break
        event = header & layout.EVENT_MASK
        if event & layout.ID_MASK <= layout.HIGHEST_DECODED_ID:
            if event in (layout.TRC_MEM_PAGE_GRANT_MAP, layout.TRC_MEM_PAGE_GRANT_UNMAP):
                status = _keep_grant(words, position, cpu, found)
            elif event == layout.TRC_LOST_RECORDS:
                status = _keep_loss(words, position, cpu, found.losses, made[_LOSSES])
                made[_LOSSES] += 1
            elif event == layout.TRC_TRACE_CPU_CHANGE:
                status = _BAD_RECORD
            if status != _WHOLE:
                break
        slot = _slot(event, ids)
        if ids[slot] == event:
            hits[slot] += 1
        else:
            _keep_id(event, slot, found)
        if has_tsc:
            timed = position + 1
        position = following
    if timed >= 0:
        found.last_tsc[cpu] = _tsc_at(words, timed)
    return status, position


@compiled
def _open_window(words: Any, position: int, found: Any) -> int:
    """Take in the CPU_CHANGE record that opens a window."""
    cpu: Any = np.int64(words[position + layout.CPU_CHANGE_CPU])
    size: Any = np.int64(words[position + layout.CPU_CHANGE_SIZE])
    if cpu >= layout.MAX_CPUS:
        return _BAD_CPU
    if size % layout.WORD_BYTES:
        return _BAD_SIZE
    found.window[_CPU] = cpu
    found.window[_LEFT] = size // layout.WORD_BYTES
    return _WHOLE


@compiled
def _scan(words: Any, found: Any) -> tuple[int, int]:
    """Walk the whole records of a piece; return a status and the word where the walk ended.

    What is behind that word is the begin of a record that goes on in the next piece.
    """
    position, end = 0, len(words)
    window = found.window
    while position < end:
        if window[_LEFT] == 0:
            if words[position] != layout.CPU_CHANGE_HEADER:
                return _NO_WINDOW, position
            if position + layout.CPU_CHANGE_WORDS > end:
                break
            status = _open_window(words, position, found)
            if status != _WHOLE:
                return status, position
            position += layout.CPU_CHANGE_WORDS
            continue
        stop = min(position + window[_LEFT], end)
        status, reached = _records(words, position, stop, window[_CPU], found)
        window[_LEFT] -= reached - position
        position = reached
        if status != _WHOLE:
            return status, position
        if position < stop:
            if stop < end or position + window[_LEFT] == end:
                return _LONG_RECORD, position
            break
    return _WHOLE, position


class _Column:
    """A column that grows by remapping: it is never in memory twice, and takes no more than what is in it."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype, self._used = dtype, 0
        self._map = mmap(-1, _FIRST_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
        with suppress(OSError):  # of a kernel without huge pages
            self._map.madvise(MADV_HUGEPAGE)

    def add(self, more: npt.NDArray[Any]) -> None:
        end = self._used + more.nbytes
        if end > len(self._map):
            self._map.resize(max(end, 2 * len(self._map)))
        self._map[self._used : end] = more.view(np.uint8).data
        self._used = end

    def whole(self) -> npt.NDArray[Any]:
        """Return all of it; nothing can be added after that."""
        if self._used:
            self._map.resize(self._used)
        return np.frombuffer(self._map, self._dtype, self._used // np.dtype(self._dtype).itemsize)


class _Reader:
    """Goes through the file ``path``, which the capture calls ``file``, piece by piece."""

    def __init__(self, path: Path, file: str) -> None:
        self._path, self._file = path, file
        words = min(PIECE_WORDS, path.stat().st_size // layout.WORD_BYTES + 1)
        grants = words // layout.GRANT_WORDS + 1
        self._words = np.empty(words, np.uint32)
        self._found = _Found(
            made=np.zeros(4, np.int64),
            unmap=np.empty(grants, np.uint8),
            tsc=np.empty(grants, np.uint64),
            cpu=np.empty(grants, np.int16),
            dom=np.empty(grants, np.uint16),
            word=np.empty(grants, np.uint64),
            losses=np.empty((words // layout.LOST_WORDS + 1, 5), np.uint64),
            ids=np.full(_SLOTS, _FREE, np.uint32),
            hits=np.zeros(_SLOTS, np.int64),
            last_tsc=np.zeros(layout.MAX_CPUS, np.uint64),
            window=np.zeros(2, np.int64),
        )

    def read(self) -> Iterator[tuple[_Grants, tuple[LossWindow, ...]]]:
        """Yield the grants and losses of each piece; at the end of a file that was cut off, that loss alone.

        The grants hold until the next piece.
        """
        held = self._words.view(np.uint8)
        begin = kept = 0
        with self._path.open("rb", buffering=0) as opened:
            while read := opened.readinto(held.data[kept:]):
                there = kept + read
                self._found.made[[_GRANTS, _LOSSES]] = 0
                words = self._words[: there // layout.WORD_BYTES]
                status, stopped = _scan(words, self._found)
                done = stopped * layout.WORD_BYTES
                if status != _WHOLE:
                    raise self._error(status, begin + done, words[stopped:])
                yield self._grants(begin), self._losses(begin)
                held[: there - done] = held[done:there].copy()
                begin, kept = begin + done, there - done
        cpu, left = self._found.window.tolist()
        if kept or left:
            cpu, since = (cpu, int(self._found.last_tsc[cpu])) if left else (EVERY_CPU, 0)
            self._found.made[_GRANTS] = 0
            yield self._grants(begin), (LossWindow(SOURCE, cpu, since, FOREVER, None, self._file, begin),)

    def counts(self) -> dict[str, int]:
        """Return how many records of each name there were since the last call."""
        uncounted, used = int(self._found.made[_UNCOUNTED]), self._found.ids != _FREE
        hits = zip(self._found.ids[used].tolist(), self._found.hits[used].tolist(), strict=True)
        counts = dict(sorted((layout.name(event), count) for event, count in hits))
        self._found.ids[:] = _FREE
        self._found.made[[_IDS, _UNCOUNTED]] = 0
        return counts | ({"other": uncounted} if uncounted else {})

    def _grants(self, begin: int) -> _Grants:
        found = self._found
        made = slice(found.made[_GRANTS])
        offset = found.word[made] * np.uint64(layout.WORD_BYTES) + np.uint64(begin)
        return _KINDS[found.unmap[made]], found.tsc[made], found.cpu[made], found.dom[made], offset

    def _losses(self, begin: int) -> tuple[LossWindow, ...]:
        losses = self._found.losses[: self._found.made[_LOSSES]].tolist()
        return tuple(
            LossWindow(SOURCE, cpu, first, last, count, self._file, begin + word * layout.WORD_BYTES)
            for cpu, first, last, count, word in losses
        )

    def _error(self, status: int, offset: int, words: npt.NDArray[np.uint32]) -> DecodeError:
        return DecodeError(
            self._path,
            offset=offset,
            expected=_EXPECTED[status],
            got=" ".join(f"{word:#010x}" for word in words[: layout.CPU_CHANGE_WORDS]),
            advice="the file is damaged or not from xentrace; record it again",
        )


def decode(path: Path, file: str) -> Stream:
    """Decode the xentrace file ``path``, which the capture calls ``file``.

    A file that was cut off gives what it holds and a loss from there on; any other break of the format
    raises DecodeError with the byte.  Besides the result this takes a fixed amount of memory.
    """
    reader, columns = _Reader(path, file), [_Column(dtype) for dtype in _TYPES]
    losses: list[LossWindow] = []
    for grants, lost in reader.read():
        for column, more in zip(columns, grants, strict=True):
            column.add(more)
        losses += lost
    return _stream(file, tuple(column.whole() for column in columns), tuple(losses), reader.counts())


def batches(path: Path, file: str) -> Iterator[Stream]:
    """Yield what :func:`decode` gives in parts, of PIECE_WORDS each: for files larger than memory.

    DecodeError comes when the walk reaches the damage.
    """
    reader = _Reader(path, file)
    for grants, losses in reader.read():
        yield _stream(file, tuple(column.copy() for column in grants), losses, reader.counts())


def _stream(file: str, grants: _Grants, losses: tuple[LossWindow, ...], counts: dict[str, int]) -> Stream:
    kind, tsc, cpu, dom, offset = grants
    payload = {name: {"dom": dom[kind == KIND_CODE[name]]} for name in ("xen_map", "xen_unmap")}
    pid = np.full(len(kind), -1, np.int32)
    return Stream(SOURCE, file, kind, tsc, cpu, pid, offset, payload, losses, counts)
