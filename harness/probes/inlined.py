"""What stands in for rows whose function a compiler inlined away, with its result or a parameter.

A stock driver has few functions of its own.  Most rows fit their inlined copies; these are for those that
want a result, which then is in a variable of the caller, or which line was reached says what it was.
"""

from __future__ import annotations

from typing import Final

from blkproof.harness.probes.compiler import Probe

_BACK: Final = "xen_blkback"
_FRONT: Final = "xen_blkfront"
_RINFO: Final = "((struct blkfront_ring_info *)dev_id)"
CALLERS_RINFO: Final = "((struct blkfront_ring_info *)blkif_interrupt::dev_id)"
"""The same from a function that was inlined into it."""

BE_GET_RET: Final = (
    Probe(
        "be_get_ret",
        _BACK,
        "get_persistent_gnt",
        {"pgnt": "data", "gref": "data->gnt", "handle": "data->handle"},
        at="data active true",
    ),
    # Only a grant that was not found, or is in use, needs a page.
    Probe(
        "be_get_ret",
        _BACK,
        "xen_blkbk_map",
        {"pgnt": "(u64)0", "gref": "(u32)0", "handle": "(u32)0"},
        at="gnttab_page_cache_get",
    ),
)
"""A hit, then a miss."""

BE_ADD_RET: Final = (
    Probe("be_add_ret", _BACK, "add_persistent_gnt", {"rc": "0"}, at="ring persistent_gnt_in_use"),
    Probe("be_add_ret", _BACK, "add_persistent_gnt", {"rc": "-16"}, at="if overflow_max_grants"),
    Probe("be_add_ret", _BACK, "add_persistent_gnt", {"rc": "-22"}, at="pr_alert_ratelimited"),
)
"""Done, -EBUSY and -EINVAL."""

DISCARDED: Final = {"fe_discard": "bytes > 0"}
"""What fe_recycle waits for: other responses are recorded by themselves."""

FE_RECYCLE: Final = (
    Probe(
        "fe_recycle",
        _FRONT,
        "blkif_completion",
        {"rinfo": f"rinfo | {CALLERS_RINFO}", "id": "s->associated_id"},
        at="if add_id_to_freelist",
        asleep_until=DISCARDED,
    ),
    Probe(
        "fe_recycle",
        _FRONT,
        "blkif_interrupt",
        {"rinfo": "dev_id", "id": f"{_RINFO}->shadow_free"},
        at="blk_mq_complete_request",
        asleep_until=DISCARDED,
    ),
)
"""Of the second half of a split request, and of any other: the list of free ids begins with it."""
