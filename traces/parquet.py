"""The EventTable as one Parquet file.

The base columns are plain columns; each kind of event is a struct column named after it, null in the rows
of other kinds, so that a query says ``be_request.id``.  Everything that is no row is JSON in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from blkproof.traces.columns import KIND_CODE, KINDS, Column, of_field
from blkproof.traces.errors import CaptureVersion, DecodeError, shown
from blkproof.traces.events import EVENTS
from blkproof.traces.stream import LossWindow

VERSION: Final = 1
_KEY: Final = b"blkproof"


def write(parts: Mapping[str, Any], path: Path) -> None:
    """Write what an EventTable is made of, by the names of its attributes, to ``path``."""
    columns = {
        "event": _dictionary(parts["kind"], KINDS),
        "tsc": pa.array(parts["tsc"]),
        "source": _dictionary(parts["source"], parts["sources"]),
        "cpu": pa.array(parts["cpu"]),
        "pid": pa.array(parts["pid"]),
        "file": _dictionary(parts["file"], parts["files"]),
        "offset": pa.array(parts["offset"]),
    }
    for name, index in parts["index"].items():
        columns[name] = _struct(name, parts["payload"][name], index, len(parts["tsc"]))
    meta = {
        "version": VERSION,
        "sources": parts["sources"],
        "files": parts["files"],
        "losses": [asdict(loss) for loss in parts["losses"]],
        "counts": parts["counts"],
        "probes": {source: sorted(names) for source, names in parts["probes"].items()},
        "missing": parts["missing"],
    }
    arrow = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(meta).encode()})
    pq.write_table(arrow, path, compression="zstd")


def read(path: Path) -> dict[str, Any]:
    """Return what an EventTable is made of; raise CaptureError when ``path`` holds none."""
    try:
        arrow = pq.read_table(path).combine_chunks()
        meta = json.loads((arrow.schema.metadata or {})[_KEY])
    except (OSError, ValueError, KeyError) as error:
        raise DecodeError(
            path,
            expected="Parquet written by blkproof",
            got=shown(error),
            advice="make it again from its capture",
        ) from error
    if meta["version"] != VERSION:
        raise CaptureVersion(
            path,
            expected=f"version {VERSION}",
            got=shown(meta["version"]),
            advice="make it again from its capture",
        )
    kinds = _codes(arrow["event"], KINDS)
    names = [name for name in arrow.column_names if name in KIND_CODE]
    return {
        "kind": kinds,
        "tsc": arrow["tsc"].to_numpy(),
        "source": _codes(arrow["source"], meta["sources"]),
        "cpu": arrow["cpu"].to_numpy(),
        "pid": arrow["pid"].to_numpy(),
        "file": _codes(arrow["file"], meta["files"]),
        "offset": arrow["offset"].to_numpy(),
        "sources": tuple(meta["sources"]),
        "files": tuple(meta["files"]),
        "index": {name: np.flatnonzero(kinds == KIND_CODE[name]) for name in names},
        "payload": {name: _payload(name, arrow[name]) for name in names},
        "losses": tuple(LossWindow(**loss) for loss in meta["losses"]),
        "counts": meta["counts"],
        "probes": {source: frozenset(armed) for source, armed in meta["probes"].items()},
        "missing": {
            source: {event: tuple(fields) for event, fields in events.items()}
            for source, events in meta["missing"].items()
        },
    }


def _dictionary(codes: npt.NDArray[np.int16], names: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(np.asarray(codes), pa.array(names, pa.string()))


def _codes(column: Any, names: Any) -> npt.NDArray[np.int16]:
    dictionary = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    known = {name: code for code, name in enumerate(names)}
    recode = np.array([known[name] for name in dictionary.dictionary.to_pylist()], np.int16)
    codes: npt.NDArray[np.int16] = recode[dictionary.indices.to_numpy()]
    return codes


def _struct(name: str, payload: Any, index: npt.NDArray[np.int64], rows: int) -> Any:
    fields = [field.name for field in EVENTS[name].fields]
    struct = pa.StructArray.from_arrays([_arrow(payload[key]) for key in fields], names=fields)
    where = np.full(rows, -1, np.int64)
    where[index] = np.arange(len(index))
    rows_or_null: Any = pa.array(where, mask=where < 0)
    return struct.take(rows_or_null)


def _arrow(column: Column) -> Any:
    if column.ndim == 1:
        return pa.array(column, pa.string() if column.dtype.kind == "O" else None)
    rows, length = column.shape
    ends = pa.array(np.arange(rows + 1, dtype=np.int64) * length)
    return pa.LargeListArray.from_arrays(ends, pa.array(np.ascontiguousarray(column).ravel()))


def _payload(name: str, column: Any) -> dict[str, Column]:
    struct = column.drop_null().combine_chunks()
    payload = {}
    for field in EVENTS[name].fields:
        stored, kind = struct.field(field.name), of_field(field)
        if kind.length:
            payload[field.name] = stored.flatten().to_numpy().reshape(len(stored), kind.length)
        else:
            payload[field.name] = stored.to_numpy(zero_copy_only=False)
    return payload
