"""All recorders of a capture, decoded: each domain's ftrace, and xentrace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blkproof.traces import ftrace, xentrace
from blkproof.traces.capture import XENTRACE, Capture
from blkproof.traces.clock import check_clock
from blkproof.traces.stream import LossWindow, Stream


@dataclass(frozen=True, slots=True)
class Recorded:
    """Streams of all recorders, losses that no single stream tells of, and what was armed by source."""

    streams: tuple[Stream, ...]
    losses: tuple[LossWindow, ...]
    probes: Mapping[str, frozenset[str]]
    missing: Mapping[str, Mapping[str, tuple[str, ...]]]


def read(capture: Capture) -> Recorded:
    """Decode everything; raise CaptureError when a file is damaged or the clocks differ."""
    domains = {name: ftrace.decode(capture, name) for name in capture.domains}
    streams = [stream for domain in domains.values() for stream in domain.streams]
    probes = {name: domain.probes for name, domain in domains.items()}
    if capture.has(XENTRACE):
        streams.append(xentrace.decode(capture.file(XENTRACE), XENTRACE))
        probes[xentrace.SOURCE] = xentrace.PROBES
    check_clock(streams, capture.domids, capture.path)
    return Recorded(
        tuple(streams),
        tuple(loss for domain in domains.values() for loss in domain.losses),
        probes,
        {name: domain.missing for name, domain in domains.items() if domain.missing},
    )
