"""Decoder of xentrace's binary output: one pass over the mapped file.

Of all records only the mapping and unmapping of grants become events; every record is counted by its id.
"""

from __future__ import annotations

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

_WHOLE, _CUT, _NO_WINDOW, _BAD_CPU, _BAD_SIZE, _LONG_RECORD, _BAD_RECORD = range(7)
_GRANTS, _LOSSES, _IDS, _UNCOUNTED = range(4)
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


class _Found(NamedTuple):
    """What one pass fills in.

    ``grants`` has lines (TSC, CPU, domid, 1 for unmap, word), ``losses`` lines (CPU, first TSC, TSC, count,
    word); ``made`` says how many of each are valid.  ``hits`` counts the event ids of ``ids``.
    """

    made: npt.NDArray[np.int64]
    grants: npt.NDArray[np.uint64]
    losses: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.uint32]
    hits: npt.NDArray[np.int64]
    last_tsc: npt.NDArray[np.uint64]


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
def _keep_grant(words: Any, position: int, cpu: int, grants: Any, row: int) -> int:
    header = words[position]
    unmap = header == layout.GRANT_UNMAP_HEADER
    if not unmap and header != layout.GRANT_MAP_HEADER:
        return _BAD_RECORD
    dom = words[position + layout.GRANT_DOM]
    if dom > layout.MAX_DOMID:
        return _BAD_RECORD
    grants[row, 0] = _tsc_at(words, position + 1)
    grants[row, 1] = cpu
    grants[row, 2] = dom
    grants[row, 3] = unmap
    grants[row, 4] = position
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
    """Walk the records of one window; return a status and the word where the walk ended."""
    ids, hits, made = found.ids, found.hits, found.made
    timed = -1
    status = _WHOLE
    while position < stop:
        header: Any = np.int64(words[position])
        has_tsc = header >> layout.TSC_SHIFT
        extra = header >> layout.EXTRA_SHIFT & layout.EXTRA_MASK
        following = position + 1 + layout.TSC_WORDS * has_tsc + extra
        if following > stop:
            status = _LONG_RECORD
            break
        event = header & layout.EVENT_MASK
        if event & layout.ID_MASK <= layout.HIGHEST_DECODED_ID:
            if event in (layout.TRC_MEM_PAGE_GRANT_MAP, layout.TRC_MEM_PAGE_GRANT_UNMAP):
                status = _keep_grant(words, position, cpu, found.grants, made[_GRANTS])
                made[_GRANTS] += 1
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
def _window(words: Any, position: int, end: int) -> int:
    """Check the CPU_CHANGE record that opens a window."""
    if words[position] != layout.CPU_CHANGE_HEADER:
        return _NO_WINDOW
    if position + layout.CPU_CHANGE_WORDS > end:
        return _CUT
    if words[position + layout.CPU_CHANGE_CPU] >= layout.MAX_CPUS:
        return _BAD_CPU
    return _BAD_SIZE if words[position + layout.CPU_CHANGE_SIZE] % layout.WORD_BYTES else _WHOLE


@compiled
def _scan(words: Any, found: Any) -> tuple[int, int, int]:
    """Walk all windows; return a status, the word where the walk ended and the CPU there."""
    position, end = 0, len(words)
    while position < end:
        status = _window(words, position, end)
        if status != _WHOLE:
            return status, position, EVERY_CPU
        cpu: Any = np.int64(words[position + layout.CPU_CHANGE_CPU])
        size: Any = np.int64(words[position + layout.CPU_CHANGE_SIZE])
        position += layout.CPU_CHANGE_WORDS
        stop = position + size // layout.WORD_BYTES
        status, position = _records(words, position, min(stop, end), cpu, found)
        if stop > end and status in (_WHOLE, _LONG_RECORD):
            return _CUT, position, cpu
        if status != _WHOLE:
            return status, position, cpu
    return _WHOLE, position, EVERY_CPU


def decode(path: Path, file: str) -> Stream:
    """Decode the xentrace file ``path``, which the capture calls ``file``.

    A file that was cut off gives what it holds and a loss from there on; any other break of the format
    raises DecodeError with the byte.
    """
    size = path.stat().st_size
    words = _mapped(path, size // layout.WORD_BYTES)
    found = _room(len(words))
    status, stopped, cpu = _scan(words, found)
    if status in _EXPECTED:
        got = " ".join(f"{word:#010x}" for word in words[stopped : stopped + layout.CPU_CHANGE_WORDS])
        raise DecodeError(
            path,
            offset=stopped * layout.WORD_BYTES,
            expected=_EXPECTED[status],
            got=got,
            advice="the file is damaged or not from xentrace; record it again",
        )
    losses = [
        LossWindow(SOURCE, cpu, first, last, count, file, word * layout.WORD_BYTES)
        for cpu, first, last, count, word in found.losses[: found.made[_LOSSES]].tolist()
    ]
    if status != _WHOLE or size % layout.WORD_BYTES:
        begin = int(found.last_tsc[cpu]) if cpu != EVERY_CPU else 0
        losses.append(LossWindow(SOURCE, cpu, begin, FOREVER, None, file, stopped * layout.WORD_BYTES))
    return _stream(file, found, tuple(losses))


def _stream(file: str, found: _Found, losses: tuple[LossWindow, ...]) -> Stream:
    grants = found.grants[: found.made[_GRANTS]]
    dom, unmap = grants[:, 2].astype(np.uint16), grants[:, 3] != 0
    return Stream(
        source=SOURCE,
        file=file,
        kind=np.where(unmap, KIND_CODE["xen_unmap"], KIND_CODE["xen_map"]).astype(np.int16),
        tsc=grants[:, 0].copy(),
        cpu=grants[:, 1].astype(np.int16),
        pid=np.full(len(grants), -1, np.int32),
        offset=grants[:, 4] * np.uint64(layout.WORD_BYTES),
        payload={"xen_map": {"dom": dom[~unmap]}, "xen_unmap": {"dom": dom[unmap]}},
        losses=losses,
        counts=_counts(found),
    )


def _mapped(path: Path, words: int) -> npt.NDArray[np.uint32]:
    if words == 0:  # an empty file can't be mapped
        return np.zeros(0, np.uint32)
    return np.asarray(np.memmap(path, dtype="<u4", mode="r", shape=words))


def _room(words: int) -> _Found:
    return _Found(  # the kernel gives memory only where something is written
        made=np.zeros(4, np.int64),
        grants=np.empty((words // layout.GRANT_WORDS + 1, 5), np.uint64),
        losses=np.empty((words // layout.LOST_WORDS + 1, 5), np.uint64),
        ids=np.full(_SLOTS, _FREE, np.uint32),
        hits=np.zeros(_SLOTS, np.int64),
        last_tsc=np.zeros(layout.MAX_CPUS, np.uint64),
    )


def _counts(found: _Found) -> dict[str, int]:
    uncounted = int(found.made[_UNCOUNTED])
    used = found.ids != _FREE
    counts = {
        layout.name(event): hits
        for event, hits in zip(found.ids[used].tolist(), found.hits[used].tolist(), strict=True)
    }
    return dict(sorted(counts.items())) | ({"other": uncounted} if uncounted else {})
