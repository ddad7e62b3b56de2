"""Tables of literal events for tests."""

from collections.abc import Iterable, Mapping
from typing import Any

from blkproof.traces.table import EventTable


def table_of(rows: Iterable[tuple[str, int, Mapping[str, Any]]], **more: Any) -> EventTable:
    """``table_of([("be_request", 100, {"id": 1}), ...])``; ``more`` are losses and probes."""
    return EventTable.from_events(rows, **more)
