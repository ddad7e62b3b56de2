"""What fio said about the load: its JSON output.

Reference: the JSON output of fio 3.x, "jobs" with "read", "write" and "trim" each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blkproof.traces.errors import DecodeError, shown

EILSEQ = 84
"""errno that fio ends a job with when verified data differ."""


@dataclass(frozen=True, slots=True)
class FioResult:
    """Sums over all jobs: requests and bytes moved, requests per second, and the first errno."""

    read_ios: int
    write_ios: int
    read_bytes: int
    write_bytes: int
    read_iops: float
    write_iops: float
    error: int

    @property
    def iops(self) -> float:
        """Reads and writes per second."""
        return self.read_iops + self.write_iops

    @property
    def verify_failed(self) -> bool:
        """Tell whether data came back other than they were written."""
        return self.error == EILSEQ


def parse_result(text: str, path: Path) -> FioResult:
    """Read fio's JSON in ``text`` (fio may print notes before it); ``path`` is for the message."""
    begin = text.find("{")
    if begin < 0:
        raise DecodeError(
            path,
            expected="fio's JSON output",
            got="none: fio did not end",
            advice="look at the guest's console",
        )
    try:
        loaded, _ = json.JSONDecoder().raw_decode(text[begin:])
        jobs = loaded["jobs"]
        return FioResult(
            read_ios=int(_sum(jobs, "read", "total_ios")),
            write_ios=int(_sum(jobs, "write", "total_ios")),
            read_bytes=int(_sum(jobs, "read", "io_bytes")),
            write_bytes=int(_sum(jobs, "write", "io_bytes")),
            read_iops=_sum(jobs, "read", "iops"),
            write_iops=_sum(jobs, "write", "iops"),
            error=next((int(job["error"]) for job in jobs if job["error"]), 0),
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise DecodeError(
            path, expected="fio's JSON output", got=shown(error), advice="look at the guest's console"
        ) from error


def _sum(jobs: list[dict[str, Any]], direction: str, figure: str) -> float:
    return sum(float(job[direction][figure]) for job in jobs)
