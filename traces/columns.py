"""From the schema's dtypes (``u32``, ``u64[11]``, ``str``) to numpy columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from blkproof.traces.events import EVENTS, EventType, Field

Column = npt.NDArray[Any]
KINDS: Final = tuple(EVENTS)
"""Names of all events; the index in here is how a table stores the kind of a row."""
KIND_CODE: Final = {name: code for code, name in enumerate(KINDS)}
_DTYPE = re.compile(r"(?:(?P<sign>[us])(?P<bits>8|16|32|64)(?:\[(?P<length>[1-9][0-9]*)\])?|str)")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How a field is stored: numpy dtype, and the elements of an array field (0 for a scalar)."""

    dtype: np.dtype[Any]
    length: int

    def empty(self, rows: int) -> Column:
        """Return a column of zeros or empty strings."""
        if self.dtype.kind == "O":
            column: Column = np.full(rows, "", dtype=object)
            return column
        return np.zeros((rows, self.length) if self.length else rows, dtype=self.dtype)


@cache
def column_type(dtype: str) -> ColumnType:
    """Translate a dtype of the schema; ValueError for one that does not exist."""
    match = _DTYPE.fullmatch(dtype)
    if match is None:
        raise ValueError(
            f"{dtype!r} is no dtype of the schema: use u8-u64, s8-s64, one of them with [n], or str"
        )
    if match["sign"] is None:
        return ColumnType(np.dtype(object), 0)
    kind = "u" if match["sign"] == "u" else "i"
    return ColumnType(np.dtype(f"<{kind}{int(match['bits']) // 8}"), int(match["length"] or 0))


def of_field(field: Field) -> ColumnType:
    """Return how ``field`` is stored."""
    return column_type(field.dtype)


def empty_payload(kind: EventType, rows: int) -> dict[str, Column]:
    """Return columns of zeros for all fields of ``kind``."""
    return {field.name: of_field(field).empty(rows) for field in kind.fields}
