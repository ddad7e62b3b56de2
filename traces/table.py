"""The EventTable: every event of a capture, from all recorders, sorted on one clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from blkproof.traces import literal, merge
from blkproof.traces.columns import KIND_CODE, KINDS, Column, empty_payload
from blkproof.traces.events import EVENTS, Event
from blkproof.traces.rows import row_type
from blkproof.traces.stream import LossWindow

if TYPE_CHECKING:
    import pandas as pd
    from blkproof.traces.capture import Capture


@dataclass(frozen=True, eq=False)
class EventTable:
    """All events, sorted by ``tsc``; events of one source and CPU are in the order of their recording.

    ``kind`` indexes KINDS, ``source`` indexes ``sources`` and ``file`` indexes ``files``.
    ``index[name]`` are the rows of one kind, ``payload[name][field]`` its columns, in that order.
    ``losses`` are the stretches in which records may be missing.  ``counts[source][name]`` counts all
    records found, with those that are no event of the schema.  ``probes[source]`` are the events that
    were armed: an event that is not in there was not looked for.  ``missing[source][event]`` are the
    fields that its recorder did not deliver (their columns are zero).
    """

    kind: npt.NDArray[np.int16]
    tsc: npt.NDArray[np.uint64]
    source: npt.NDArray[np.int16]
    cpu: npt.NDArray[np.int16]
    pid: npt.NDArray[np.int32]
    file: npt.NDArray[np.int16]
    offset: npt.NDArray[np.uint64]
    sources: tuple[str, ...]
    files: tuple[str, ...]
    index: Mapping[str, npt.NDArray[np.int64]]
    payload: Mapping[str, Mapping[str, Column]]
    losses: tuple[LossWindow, ...] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    probes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def build(cls, capture: Capture) -> Self:
        """Decode all traces of ``capture``; raise CaptureError when they can't be evidence."""
        from blkproof.traces.recorders import read  # numba is slow to import: only for decoding

        recorded = read(capture)
        return cls(
            **merge.columns(recorded.streams),
            losses=tuple(loss for stream in recorded.streams for loss in stream.losses) + recorded.losses,
            counts=merge.counts(recorded.streams),
            probes=recorded.probes,
            missing=recorded.missing,
        )

    @classmethod
    def from_events(
        cls,
        rows: Iterable[tuple[str, int, Mapping[str, Any]]],
        losses: Sequence[LossWindow] = (),
        probes: Mapping[str, Collection[str]] | None = None,
    ) -> Self:
        """Make a table of literal events ``(name, tsc, fields)``, for examples and tests.

        ``fields`` may also set source, cpu, pid, file and offset; what it leaves out is zero, the source
        is dom0, guest1 or xen by the event's origin.  Without ``probes`` all events count as armed.
        """
        streams = literal.streams(rows)
        armed = literal.all_probes() if probes is None else probes
        return cls(
            **merge.columns(streams),
            losses=tuple(losses),
            counts=merge.counts(streams),
            probes={source: frozenset(names) for source, names in armed.items()},
        )

    def __len__(self) -> int:
        return len(self.tsc)

    def __iter__(self) -> Iterator[Event]:
        return self.rows()

    def count(self, name: str) -> int:
        """Return how many events of the kind ``name`` there are."""
        return len(self.index[name]) if name in self.index else 0

    def rows(self, names: Iterable[str] | None = None, source: str | None = None) -> Iterator[Event]:
        """Yield events in the order of time, of the kinds ``names`` and of ``source`` only when given.

        Each is a named tuple with the columns of BASE and the fields of its kind; arrays are tuples.
        """
        wanted = [
            name for name in (self.index if names is None else dict.fromkeys(names)) if self.count(name)
        ]
        chosen: list[Event | None] = [None] * len(self)
        for name in wanted:
            events = map(row_type(name)._make, zip(*self._lists(name), strict=True))
            for position, event in zip(self.index[name].tolist(), events, strict=True):
                chosen[position] = event
        return (e for e in chosen if e is not None and (source is None or e.source == source))

    def of(self, name: str) -> pd.DataFrame:
        """Return all events of the kind ``name`` as a frame, indexed by their row in the table.

        Columns are those of BASE and all fields that are no arrays (for these see :meth:`arrays`).
        """
        import pandas as pd  # slow to import: only when asked for

        index = self._index_of(name)
        columns: dict[str, Any] = {
            "event": pd.Categorical.from_codes(np.zeros(len(index), np.int8), pd.Index([name])),
            "tsc": self.tsc[index],
            "source": pd.Categorical.from_codes(self.source[index], pd.Index(self.sources)),
            "cpu": self.cpu[index],
            "pid": self.pid[index],
            "file": pd.Categorical.from_codes(self.file[index], pd.Index(self.files)),
            "offset": self.offset[index],
        }
        columns |= {key: column for key, column in self._payload_of(name).items() if column.ndim == 1}
        return pd.DataFrame(columns, index=pd.Index(index, name="row"))

    def arrays(self, name: str, key: str) -> Column:
        """Return the array field ``key`` of all events of the kind ``name``: one line per event."""
        column = self._payload_of(name)[key]
        if column.ndim != 2:
            raise ValueError(f"{name}.{key} is no array: take it from of({name!r})")
        return column

    def to_parquet(self, path: Path | str) -> None:
        """Write the whole table, losses included, to one Parquet file."""
        from blkproof.traces import parquet  # slow to import: only when asked for

        parquet.write(vars(self), Path(path))

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        """Read what :meth:`to_parquet` wrote."""
        from blkproof.traces import parquet  # slow to import: only when asked for

        return cls(**parquet.read(Path(path)))

    def _index_of(self, name: str) -> npt.NDArray[np.int64]:
        if name not in KIND_CODE:
            raise ValueError(f"there is no event {name!r}; see blkproof.traces.events.EVENTS")
        return self.index.get(name, np.zeros(0, np.int64))

    def _payload_of(self, name: str) -> Mapping[str, Column]:
        return self.payload.get(name) or empty_payload(EVENTS[name], 0)

    def _lists(self, name: str) -> list[Iterable[Any]]:
        index = self.index[name]
        base: list[Iterable[Any]] = [
            [name] * len(index),
            self.tsc[index].tolist(),
            [self.sources[code] for code in self.source[index].tolist()],
            self.cpu[index].tolist(),
            self.pid[index].tolist(),
            [self.files[code] for code in self.file[index].tolist()],
            self.offset[index].tolist(),
        ]
        fields = self.payload[name]
        for key in (f.name for f in EVENTS[name].fields):
            column = fields[key].tolist()
            base.append(map(tuple, column) if fields[key].ndim == 2 else column)
        return base


__all__ = ["KINDS", "EventTable", "LossWindow"]
