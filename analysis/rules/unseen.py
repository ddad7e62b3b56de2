"""Rules that no trace of ours can decide, each with the reason."""

from __future__ import annotations

from blkproof.analysis.registry import undecidable

undecidable(
    id="R35",
    level="MUST",
    side="frontend",
    source="Linux blkif_queue_rw_req, HAS_EXTRA_REQ",
    obligation="Where pages are larger than 4 KiB, a request too large for one ring entry goes out as two of "
    "consecutive sectors, and is over when both are answered.",
    reason="guests here are x86, whose pages have 4 KiB: they never split a request",
)
