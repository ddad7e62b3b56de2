"""Light records: one named tuple type per kind of event, made from the schema."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from typing import Any

from blkproof.traces.events import BASE, EVENTS


@cache
def row_type(name: str) -> Any:
    """Return the named tuple of the event ``name``: the columns of BASE, then its own fields."""
    fields = [field.name for field in (*BASE, *EVENTS[name].fields)]
    return namedtuple(name, fields)
