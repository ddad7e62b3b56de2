"""What stands in a recording before it is sealed: marks, and how many events of a kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blkproof.traces import ftrace
from blkproof.traces.capture import Capture
from blkproof.traces.columns import KIND_CODE
from blkproof.traces.errors import DecodeError

JOB_BEGINS: Final = "blkproof:io"
JOB_ENDS: Final = "blkproof:io-done"
"""Marks in the guest's trace, by each of fio's jobs: its first request comes, its last one is done."""

_TAKEN: Final = ("be_request", "be_discard", "be_other")


@dataclass(frozen=True, slots=True)
class Load:
    """A load as recorded: ``ticks`` between its marks.

    ``requests`` were taken off the ring by the backend; without its probes there are none to be seen.
    ``ios`` are those that fio counted.
    """

    ticks: int
    requests: int
    ios: int


def read_load(directory: Path, guest: str) -> Load:
    """Read a load from the directory of a recording, sealed or not.

    :raise CaptureError: when it is damaged, or fio's job did not begin and end.
    """
    capture = Capture.unsealed(directory)
    marks = [
        (text.strip(), tsc)
        for stream in ftrace.decode(capture, guest).streams
        for text, tsc in zip(
            stream.payload.get("mark", {}).get("text", ()),
            stream.tsc[stream.kind == KIND_CODE["mark"]].tolist(),
            strict=True,
        )
    ]
    begins = [tsc for text, tsc in marks if text == JOB_BEGINS]
    ends = [tsc for text, tsc in marks if text == JOB_ENDS]
    if not begins or not ends:
        raise DecodeError(
            directory / guest / "trace",
            expected=f"the marks {JOB_BEGINS!r} and {JOB_ENDS!r}",
            got="a load that did not begin and end",
            advice="look at the guest's fio.log",
        )
    counts = [stream.counts for stream in ftrace.decode(capture, "dom0").streams]
    fio = capture.fio(guest)
    return Load(
        ticks=max(ends) - min(begins),
        requests=sum(count.get(kind, 0) for count in counts for kind in _TAKEN),
        ios=fio.read_ios + fio.write_ios,
    )
