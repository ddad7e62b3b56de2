"""What one recorder delivered: decoded rows in its own order, and what it is known to have lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from blkproof.traces.columns import Column

EVERY_CPU: Final = -1
FOREVER: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class LossWindow:
    """A stretch of time in which records of ``source`` may be missing.

    ``cpu`` is EVERY_CPU when it is not known, ``begin_tsc`` and ``end_tsc`` are in ticks (0 and FOREVER
    when open), ``count`` is the number of lost records or None, ``event`` the one kind that was lost or
    None for any, ``file`` and ``offset`` say where the capture tells of it.
    """

    source: str
    cpu: int
    begin_tsc: int
    end_tsc: int
    count: int | None
    file: str
    offset: int
    event: str | None = None


@dataclass
class Stream:
    """Rows of one file in file order, as columns of the same length.

    ``payload`` holds, per kind, the columns of its fields; they are as long as the kind has rows.
    ``cpu`` also names the sub-streams in which time never runs backwards.
    """

    source: str
    file: str
    kind: npt.NDArray[np.int16]
    tsc: npt.NDArray[np.uint64]
    cpu: npt.NDArray[np.int16]
    pid: npt.NDArray[np.int32]
    offset: npt.NDArray[np.uint64]
    payload: Mapping[str, Mapping[str, Column]]
    losses: tuple[LossWindow, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
