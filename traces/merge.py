"""Streams of several recorders become one sequence on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from blkproof.traces.columns import KINDS, Column
from blkproof.traces.events import EVENTS
from blkproof.traces.stream import Stream


def columns(streams: Sequence[Stream]) -> dict[str, Any]:
    """Return the columns of an EventTable with all rows of ``streams``, sorted by time.

    Rows of one stream and CPU keep their order even where its clock stepped back.
    """
    sources = tuple(dict.fromkeys(stream.source for stream in streams))
    files = tuple(dict.fromkeys(stream.file for stream in streams))
    keys = [_order_key(stream) for stream in streams]
    order = np.argsort(_joined(keys, np.uint64), kind="stable")
    kind = _joined([s.kind for s in streams], np.int16)
    lengths = [len(s.tsc) for s in streams]
    source = np.repeat(np.array([sources.index(s.source) for s in streams], np.int16), lengths)
    file = np.repeat(np.array([files.index(s.file) for s in streams], np.int16), lengths)
    index, payload = _payloads(streams, kind, order)
    return {
        "kind": kind[order],
        "tsc": _joined([s.tsc for s in streams], np.uint64)[order],
        "source": source[order],
        "cpu": _joined([s.cpu for s in streams], np.int16)[order],
        "pid": _joined([s.pid for s in streams], np.int32)[order],
        "file": file[order],
        "offset": _joined([s.offset for s in streams], np.uint64)[order],
        "sources": sources,
        "files": files,
        "index": index,
        "payload": payload,
    }


def counts(streams: Sequence[Stream]) -> dict[str, dict[str, int]]:
    """Return how many records of each name every source delivered."""
    total: dict[str, dict[str, int]] = {}
    for stream in streams:
        of_source = total.setdefault(stream.source, {})
        for name, count in stream.counts.items():
            of_source[name] = of_source.get(name, 0) + count
    return total


def _order_key(stream: Stream) -> npt.NDArray[np.uint64]:
    key = stream.tsc.copy()
    for cpu in np.unique(stream.cpu):
        of_cpu = stream.cpu == cpu
        key[of_cpu] = np.maximum.accumulate(key[of_cpu])
    return key


def _joined(parts: Sequence[Column], dtype: Any) -> Column:
    return np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype, copy=False)


def _payloads(
    streams: Sequence[Stream], kind: npt.NDArray[np.int16], order: npt.NDArray[np.int64]
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, dict[str, Column]]]:
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    index: dict[str, npt.NDArray[np.int64]] = {}
    payload: dict[str, dict[str, Column]] = {}
    for code in np.unique(kind).tolist():
        name = KINDS[code]
        positions = position[kind == code]
        local = np.argsort(positions)
        index[name] = positions[local]
        parts = [s.payload[name] for s in streams if name in s.payload]
        payload[name] = {
            field.name: np.concatenate([part[field.name] for part in parts])[local]
            for field in EVENTS[name].fields
        }
    return index, payload
