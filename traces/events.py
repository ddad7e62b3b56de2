"""The one schema of every event that blkproof sees, and its documentation.

``EVENTS`` drives the probes (an argument of a probe has the name of a field
here), the decoders, the :class:`~blkproof.traces.table.EventTable`, its Parquet
file and ``blkproof rules``.  Names are those of ``blkif.h`` and of the drivers.

A field of dtype ``u32[8]`` is an array; the kernel may deliver it as one array
or as numbered arguments (``gref0``, ``gref1``, ...).  ``n`` style fields say how
many of its elements are valid: the rest is whatever memory held, so look no
further.  Everything that a guest wrote is hostile until a rule has checked it.

This file is longer than the house likes because it is one table, read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

Origin = Literal["backend", "frontend", "either", "xen"]

MAP_OP_WORDS: Final = 4
"""64-bit words in one ``struct gnttab_map_grant_ref``."""
UNMAP_OP_WORDS: Final = 3
"""64-bit words in one ``struct gnttab_unmap_grant_ref``."""
SEG_BUF_WORDS: Final = 2
"""64-bit words in one ``struct seg_buf`` of xen-blkback; the high half of the second is padding."""
UNMAPS_IN: Final = {
    "gt_unmap": range(1),
    "gt_unmap_few": range(1, 11),
    "gt_unmap_more": range(11, 32),
    "gt_unmap_many": range(32, 158),
    "gt_unmap_rest": range(158, 284),
}
"""Which operations of one unmap call an event holds; a call with more is not fully seen."""
PUSHED_IN: Final = {"fe_page": range(32), "fe_page_more": range(32, 160), "fe_page_rest": range(160, 256)}
"""Which segments of an indirect request an event of the frontend holds."""
SEGMENTS_IN: Final = {
    "be_indirect": range(32),
    "be_indirect_more": range(32, 160),
    "be_indirect_rest": range(160, 256),
}
"""Which segments of an indirect request an event holds; Linux's backend refuses a request with more."""
SEGMENTS_SEEN: Final = 256
"""Segments of one request that are recorded; a request with more is not fully seen."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column of an event: name, dtype (``u32``, ``u64[11]``, ``str``) and meaning with its unit."""

    name: str
    dtype: str
    meaning: str


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event: its name, which domain records it, what happened, and its fields."""

    name: str
    origin: Origin
    meaning: str
    fields: tuple[Field, ...]


class Event(Protocol):
    """One row of the table, as rules see it: the columns that every event has, and its own fields.

    ``tsc`` is in ticks of the one clock that Xen and all domains share, ``offset`` is the byte of
    ``file`` (relative to the capture) at which the record starts.
    """

    @property
    def event(self) -> str: ...  # noqa: D102 - described by BASE
    @property
    def tsc(self) -> int: ...  # noqa: D102 - described by BASE
    @property
    def source(self) -> str: ...  # noqa: D102 - described by BASE
    @property
    def cpu(self) -> int: ...  # noqa: D102 - described by BASE
    @property
    def pid(self) -> int: ...  # noqa: D102 - described by BASE
    @property
    def file(self) -> str: ...  # noqa: D102 - described by BASE
    @property
    def offset(self) -> int: ...  # noqa: D102 - described by BASE
    def __getattr__(self, name: str) -> Any: ...


BASE: Final = (
    Field("event", "str", "name of the kind of event, a key of EVENTS"),
    Field("tsc", "u64", "time in TSC ticks, one clock for Xen and all domains"),
    Field("source", "str", "who recorded it: dom0, guest1, ... or xen"),
    Field("cpu", "s16", "virtual CPU of the source (physical CPU for xen)"),
    Field("pid", "s32", "thread of the source's kernel, -1 for xen"),
    Field("file", "str", "file in the capture that holds the record"),
    Field("offset", "u64", "byte in that file at which the record starts"),
)
"""The columns that every event has."""


def _f(name: str, dtype: str, meaning: str) -> Field:
    return Field(name, dtype, meaning)


def _seg(event: str) -> Field:
    return _f(
        "seg",
        f"u64[{len(SEGMENTS_IN[event]) * SEG_BUF_WORDS}]",
        "struct seg_buf, 2 words each: offset in bytes, then nsec in the low 32 bits",
    )


def _pushed(event: str) -> Field:
    return _f(
        "page",
        f"u64[{len(PUSHED_IN[event])}]",
        "segments in the indirect page: gref, first_sect << 32, last_sect << 40",
    )


def _unmaps(event: str) -> Field:
    words = len(UNMAPS_IN[event]) * UNMAP_OP_WORDS
    return _f("ops", f"u64[{words}]", "struct gnttab_unmap_grant_ref, 3 words each")


def _refs(event: str) -> Field:
    return _f("refs", f"s32[{len(UNMAPS_IN[event])}]", "references to each page")


_RING = _f("ring", "u64", "address of struct xen_blkif_ring: names the ring on the backend's side")
_RINFO = _f("rinfo", "u64", "address of struct blkfront_ring_info: names the ring on the frontend's side")
_ID = _f("id", "u64", "id of the request, chosen by the frontend")
_DOM = _f("dom", "u16", "domid of the frontend")
_SHARED = (
    _f("s_req_prod", "u32", "req_prod on the shared page"),
    _f("s_req_event", "u32", "req_event on the shared page"),
    _f("s_rsp_prod", "u32", "rsp_prod on the shared page"),
    _f("s_rsp_event", "u32", "rsp_event on the shared page"),
)
_BACK_INDICES = (
    _f("req_cons", "u32", "backend's req_cons; in be_request it is already past this request"),
    _f("rsp_prod_pvt", "u32", "backend's private response producer"),
    _f("nr_ents", "u32", "entries of the ring"),
    *_SHARED,
)
_FRONT_INDICES = (
    _f("req_prod_pvt", "u32", "frontend's private request producer; only in fe_push it is past this request"),
    _f("rsp_cons", "u32", "frontend's response consumer"),
    _f("nr_ents", "u32", "entries of the ring"),
)
_REQUEST = (
    _f("op", "u8", "operation of blkif.h"),
    _ID,
    _f("nr", "u8", "nr_segments of a direct request"),
    _f("handle", "u16", "handle of a direct request"),
    _f("sector", "u64", "sector_number, 512-byte units (the same place in an indirect request)"),
    _f("seg", "u64[11]", "segments: gref, first_sect << 32, last_sect << 40"),
    _f("indirect_op", "u8", "operation inside an indirect request"),
    _f("indirect_nr", "u16", "nr_segments of an indirect request"),
    _f("indirect_handle", "u16", "handle of an indirect request"),
    _f("indirect_gref", "u32[8]", "grants of the pages that hold an indirect request's segments"),
)
_IRQ = _f("irq", "u32", "irq of the ring's event channel, by which ev_notify tells whether it was notified")
_TREE = (
    _f("pgc", "u32", "persistent_gnt_c: grants in the backend's tree"),
    _f("in_use", "s32", "persistent_gnt_in_use"),
)

_BACKEND = (
    EventType(
        "be_request",
        "backend",
        "backend took a read, write, barrier, flush or indirect request off the ring "
        "(dispatch_rw_block_io, private copy of the request)",
        (
            _RING,
            _DOM,
            _f("vbd", "u16", "handle of the backend's vbd"),
            *_REQUEST,
            *_BACK_INDICES,
            *_TREE,
        ),
    ),
    EventType(
        "be_discard",
        "backend",
        "backend took a discard request off the ring (dispatch_discard_io)",
        (
            _RING,
            _DOM,
            _f("op", "u8", "operation of blkif.h"),
            _ID,
            _f("flag", "u8", "BLKIF_DISCARD_SECURE or 0"),
            _f("sector", "u64", "sector_number, 512-byte units"),
            _f("nr_sectors", "u64", "length, 512-byte units"),
            *_BACK_INDICES,
        ),
    ),
    EventType(
        "be_other",
        "backend",
        "backend took a request with an operation that it does not know (dispatch_other_io)",
        (_RING, _DOM, _f("op", "u8", "operation"), _ID, *_BACK_INDICES),
    ),
    EventType(
        "be_indirect",
        "backend",
        "backend has read the segments of an indirect request, and lets go of its indirect pages "
        "(xen_blkbk_unmap, also called, with another request's id, when mapping data fails); the segments' "
        "grants are in be_get, or without persistent grants in gt_map, of the be_map that follows",
        (
            _RING,
            _f("n", "s32", "indirect pages"),
            _ID,
            _f("op", "u16", "operation inside"),
            _f("nr", "s32", "segments"),
            _seg("be_indirect"),
        ),
    ),
    EventType(
        "be_indirect_more",
        "backend",
        "the same request's segments from number 32 on, counted from 0",
        (_ID, _f("nr", "s32", "segments"), _seg("be_indirect_more")),
    ),
    EventType(
        "be_indirect_rest",
        "backend",
        "the same request's segments from number 160 on",
        (_ID, _f("nr", "s32", "segments"), _seg("be_indirect_rest")),
    ),
    EventType(
        "be_map",
        "backend",
        "start of xen_blkbk_map, for data or for indirect pages",
        (_RING, _f("n", "s32", "pages"), _f("ro", "u8", "1 when the backend will only read"), *_TREE),
    ),
    EventType("be_map_ret", "backend", "end of xen_blkbk_map", (_f("rc", "s32", "0 or an error"),)),
    EventType(
        "be_get",
        "backend",
        "backend looks a grant up in its tree (get_persistent_gnt)",
        (_RING, _f("gref", "u32", "grant looked for")),
    ),
    EventType(
        "be_get_ret",
        "backend",
        "result of the look-up by the same thread",
        (
            _f("pgnt", "u64", "address of struct persistent_gnt, 0 for a miss"),
            _f("gref", "u32", "its grant; only with a hit"),
            _f("handle", "u32", "its handle; only with a hit"),
        ),
    ),
    EventType(
        "be_add",
        "backend",
        "backend adds a mapped grant to its tree (add_persistent_gnt)",
        (_RING, _f("gref", "u32", "grant"), _f("handle", "u32", "handle of its mapping"), *_TREE),
    ),
    EventType("be_add_ret", "backend", "result of the adding", (_f("rc", "s32", "0, -EBUSY or -EINVAL"),)),
    EventType(
        "be_put",
        "backend",
        "a request gives a persistent grant back (put_persistent_gnt)",
        (
            _RING,
            _f("gref", "u32", "grant"),
            _f("handle", "u32", "handle of its mapping"),
            _f("active", "u8", "1 when it was in use, as it must be"),
        ),
    ),
    EventType("be_purge", "backend", "LRU scan of the tree (purge_persistent_gnt)", (_RING, *_TREE)),
    EventType(
        "be_purge_work",
        "backend",
        "deferred unmapping of purged grants starts (xen_blkbk_unmap_purged_grants)",
        (_f("work", "u64", "address of the ring's persistent_purge_work"),),
    ),
    EventType(
        "be_free_persistent",
        "backend",
        "backend starts to unmap its whole tree (free_persistent_gnts)",
        (_RING, _f("num", "u32", "grants in the tree"), *_TREE),
    ),
    EventType(
        "be_submit",
        "backend",
        "backend submits the bios of a request (dispatch_rw_block_io)",
        (
            _RING,
            _ID,
            _f("nbio", "s32", "bios; what follows is of the first"),
            _f("opf", "u32", "bi_opf: REQ_OP_* in the low byte, then REQ_* flags"),
            _f("sector", "u64", "first sector, 512-byte units of the disk behind; not set for a flush"),
            _f("bytes", "u32", "length in bytes"),
        ),
    ),
    EventType(
        "be_io_end",
        "backend",
        "one bio of the request ended (__end_block_io_op)",
        (_RING, _ID, _f("error", "u8", "blk_status_t, 0 for success")),
    ),
    EventType(
        "be_response",
        "backend",
        "backend has written a response into the ring, and counts and pushes it next "
        "(make_response, under the ring's lock); it has unmapped all by then "
        "(xen_blkbk_unmap_and_respond_callback)",
        (
            _RING,
            _DOM,
            _f("id", "u64", "id in the response"),
            _f("op", "u8", "operation in the response"),
            _f("status", "s16", "BLKIF_RSP_*: 0, -1 or -2"),
            _IRQ,
            *_BACK_INDICES,
            *_TREE,
        ),
    ),
    EventType(
        "be_connect",
        "backend",
        "backend is about to start a device's threads if it is connected "
        "(xen_update_blkif_status); with its module's parameters as they are then",
        (
            _DOM,
            _f("vbd", "u16", "handle of the backend's vbd"),
            _f("persistent", "u8", "feature_gnt_persistent as negotiated"),
            _f("protocol", "u32", "enum blkif_protocol: 1 native, 2 x86_32, 3 x86_64"),
            _f("nr_rings", "u32", "rings"),
            _f("nr_ring_pages", "u32", "pages of each ring"),
            _f("feature_persistent", "u8", "parameter feature_persistent"),
            _f("max_persistent_grants", "s32", "parameter max_persistent_grants"),
            _f("max_buffer_pages", "s32", "parameter max_buffer_pages"),
            _f("max_queues", "u32", "parameter max_queues"),
            _f("max_ring_page_order", "u32", "parameter max_ring_page_order"),
        ),
    ),
    EventType(
        "be_thread_start",
        "backend",
        "a ring's thread starts (xen_blkif_schedule)",
        (_RING,),
    ),
    EventType(
        "be_thread_stop",
        "backend",
        "a ring's thread has left its loop (xen_blkif_schedule): it takes no more requests",
        (_RING,),
    ),
    EventType(
        "be_disconnect",
        "backend",
        "backend disconnects a device (xen_blkif_disconnect)",
        (_DOM,),
    ),
    EventType(
        "be_fe_changed",
        "backend",
        "backend saw its frontend change state (frontend_changed)",
        (_f("node", "str", "xenstore path of the backend"), _f("state", "u32", "XenbusState")),
    ),
    EventType(
        "gt_map",
        "backend",
        "grants were mapped; statuses and handles are in (set_foreign_p2m_mapping)",
        (
            _f("n", "u32", "operations, at most 11 are recorded"),
            _f("ops", f"u64[{11 * MAP_OP_WORDS}]", "struct gnttab_map_grant_ref, 4 words each"),
        ),
    ),
    EventType(
        "gt_unmap",
        "backend",
        "grants were unmapped; statuses are in (clear_foreign_p2m_mapping); Linux calls it for none, too",
        (
            _f("n", "u32", "operations; the first is recorded here"),
            _unmaps("gt_unmap"),
            _refs("gt_unmap"),
        ),
    ),
    EventType(
        "gt_unmap_few",
        "backend",
        "the same call's operations from number 1 on, counted from 0",
        (_f("n", "u32", "operations of the call"), _unmaps("gt_unmap_few"), _refs("gt_unmap_few")),
    ),
    EventType(
        "gt_unmap_more",
        "backend",
        "the same call's operations from number 11 on, counted from 0",
        (_f("n", "u32", "operations of the call"), _unmaps("gt_unmap_more")),
    ),
    EventType(
        "gt_unmap_many",
        "backend",
        "the same call's operations from number 32 on, counted from 0",
        (_f("n", "u32", "operations of the call"), _unmaps("gt_unmap_many")),
    ),
    EventType(
        "gt_unmap_rest",
        "backend",
        "the same call's operations from number 158 on, counted from 0",
        (_f("n", "u32", "operations of the call"), _unmaps("gt_unmap_rest")),
    ),
    EventType(
        "gt_map_ring",
        "backend",
        "a backend maps the pages of a ring (xenbus_map_ring_valloc); it may do so more than once",
        (
            _f("node", "str", "xenstore path of the backend"),
            _f("n", "u32", "pages"),
            _f("gref", "u32", "grant of the first page"),
        ),
    ),
    EventType(
        "gt_unmap_ring",
        "backend",
        "a backend unmaps the pages of a ring (xenbus_unmap_ring_vfree)",
        (_f("node", "str", "xenstore path of the backend"),),
    ),
    EventType(
        "gt_unmap_async",
        "backend",
        "one try of a safe unmap (__gnttab_unmap_refs_async)",
        (
            _f("item", "u64", "address of struct gntab_unmap_queue_data"),
            _f("n", "u32", "pages"),
            _f("age", "u32", "tries before this one"),
        ),
    ),
    EventType(
        "gt_unmap_retry",
        "backend",
        "a safe unmap is tried again, since somebody still held one of its pages (gnttab_unmap_work)",
        (
            _f("item", "u64", "address of struct gntab_unmap_queue_data"),
            _f("n", "u32", "pages; of at most 11 the references are recorded"),
            _f("age", "u32", "tries before this one, less 1"),
            _f("refs", "s32[11]", "references to each page; it can be unmapped with 1"),
        ),
    ),
)

_FRONTEND = (
    EventType(
        "fe_queue",
        "frontend",
        "block layer hands the frontend a read, write or flush (blkif_queue_rw_req)",
        (
            _RINFO,
            _f("vdev", "s32", "virtual device number"),
            _f("flags", "u32", "cmd_flags: REQ_OP_* in the low byte"),
            _f("sector", "u64", "first sector, 512-byte units"),
            _f("bytes", "u32", "length in bytes"),
            _f("nr_phys", "u16", "nr_phys_segments: pieces in memory, of at most a page"),
            *_FRONT_INDICES,
            _f("pgc", "u32", "persistent_gnts_c: granted entries in the free list"),
            _f("persistent", "u8", "feature_persistent as negotiated"),
            _f("max_indirect", "u32", "max_indirect_segments as negotiated, 0 for none"),
        ),
    ),
    EventType(
        "fe_discard",
        "frontend",
        "block layer hands the frontend a discard (blkif_queue_discard_req)",
        (
            _RINFO,
            _f("id", "u64", "id that it gets"),
            _f("sector", "u64", "first sector, 512-byte units"),
            _f("bytes", "u32", "length in bytes"),
            *_FRONT_INDICES,
        ),
    ),
    EventType(
        "fe_push",
        "frontend",
        "frontend copies a finished read, write or flush into the ring and pushes it next "
        "(blkif_queue_rw_req); its grants were given, or kept, since fe_queue",
        (
            _RINFO,
            *_REQUEST,
            _f("copy", "u8", "1 when the data was copied into bounce pages"),
            _IRQ,
            *_FRONT_INDICES,
            *_SHARED,
        ),
    ),
    EventType(
        "fe_page",
        "frontend",
        "frontend has filled the indirect page of the request that its CPU is queueing "
        "(blkif_queue_rw_req); of several pages, the last",
        (_ID, _f("nr", "u16", "segments"), _pushed("fe_page")),
    ),
    EventType(
        "fe_page_more",
        "frontend",
        "the same page's segments from number 32 on, counted from 0",
        (_ID, _f("nr", "u16", "segments"), _pushed("fe_page_more")),
    ),
    EventType(
        "fe_page_rest",
        "frontend",
        "the same page's segments from number 160 on",
        (_ID, _f("nr", "u16", "segments"), _pushed("fe_page_rest")),
    ),
    EventType(
        "fe_irq",
        "frontend",
        "frontend looks for responses (blkif_interrupt)",
        (
            _RINFO,
            _f("req_prod_pvt", "u32", "frontend's private request producer"),
            _f("rsp_cons", "u32", "frontend's response consumer"),
            _f("nr_ents", "u32", "entries of the ring"),
            _f("s_rsp_prod", "u32", "rsp_prod on the shared page"),
            _f("s_rsp_event", "u32", "rsp_event on the shared page"),
        ),
    ),
    EventType(
        "fe_response",
        "frontend",
        "frontend took a response, other than to a discard, and completes its request (blkif_completion)",
        (
            _RINFO,
            _f("id", "u64", "id in the response"),
            _f("op", "u8", "operation in the response"),
            _f("status", "s16", "BLKIF_RSP_*"),
            _f("rsp_cons", "u32", "frontend's response consumer before this interrupt's responses"),
        ),
    ),
    EventType(
        "fe_recycle",
        "frontend",
        "frontend frees an id (add_id_to_freelist); recorded once it has seen a discard, for all other "
        "responses are in fe_response",
        (_RINFO, _ID),
    ),
    EventType(
        "fe_connect",
        "frontend",
        "frontend prepares a ring after it has read what the backend offers (blkfront_setup_indirect); "
        "with its module's parameters as they are then",
        (
            _RINFO,
            _f("vdev", "s32", "virtual device number"),
            _f("persistent", "u8", "feature_persistent as negotiated"),
            _f("bounce", "u8", "1 when data is always copied into bounce pages"),
            _f("max_indirect", "u32", "max_indirect_segments as negotiated, 0 for none"),
            _f("nr_rings", "u32", "rings"),
            _f("nr_ring_pages", "u32", "pages of each ring"),
            _f("feature_persistent", "u8", "parameter feature_persistent"),
            _f("trusted", "u8", "parameter trusted"),
            _f("max_indirect_segments", "u32", "parameter max_indirect_segments"),
            _f("max_queues", "u32", "parameter max_queues"),
            _f("max_ring_page_order", "u32", "parameter max_ring_page_order"),
        ),
    ),
    EventType(
        "fe_free",
        "frontend",
        "frontend takes a ring down and ends its grants (blkif_free_ring)",
        (_RINFO,),
    ),
    EventType(
        "fe_be_changed",
        "frontend",
        "frontend saw its backend change state (blkback_changed)",
        (_f("node", "str", "xenstore path of the frontend"), _f("state", "u32", "XenbusState")),
    ),
    EventType(
        "gt_grant",
        "frontend",
        "access granted (gnttab_grant_foreign_access_ref), by a reference that the driver claimed for it",
        (
            _f("ref", "u32", "grant"),
            _f("dom", "u16", "domid that gets access"),
            _f("frame", "u64", "frame granted"),
            _f("ro", "s32", "1 for read-only"),
        ),
    ),
    EventType(
        "gt_try_end",
        "frontend",
        "driver asks to end a grant (gnttab_try_end_foreign_access); a gt_put_free of the same reference "
        "follows on the same CPU, unless the backend still maps it",
        (_f("ref", "u32", "grant"),),
    ),
    EventType(
        "gt_end",
        "frontend",
        "driver ends a grant for good (gnttab_end_foreign_access); it is deferred unless a gt_put_free of "
        "the same reference follows on the same CPU",
        (_f("ref", "u32", "grant"),),
    ),
    EventType(
        "gt_deferred",
        "frontend",
        "deferred grants are tried again (gnttab_handle_deferred)",
        (_f("timer", "u64", "address of the timer"),),
    ),
    EventType(
        "gt_put_free",
        "frontend",
        "grant reference is free again (put_free_entry_locked)",
        (_f("ref", "u32", "grant"),),
    ),
)

_EITHER = (
    EventType(
        "xs_write",
        "either",
        "a kernel writes to xenstore (xenbus_write)",
        (
            _f("xbt", "u32", "transaction, 0 for none"),
            _f("dir", "str", "directory"),
            _f("node", "str", "key in it"),
            _f("value", "str", "value"),
        ),
    ),
    EventType(
        "xs_switch",
        "either",
        "a driver switches its XenBus state (xenbus_switch_state)",
        (_f("node", "str", "xenstore path of the device"), _f("state", "u32", "XenbusState")),
    ),
    EventType(
        "ev_notify",
        "either",
        "event channel notified (notify_remote_via_irq)",
        (_f("irq", "s32", "irq bound to the channel"),),
    ),
    EventType(
        "ev_eoi",
        "either",
        "a driver is done with an event and lets the next one come (xen_irq_lateeoi)",
        (
            _f("irq", "u32", "irq bound to the channel"),
            _f("flags", "u32", "1 when there was no work (XEN_EOI_FLAG_SPURIOUS)"),
        ),
    ),
    EventType(
        "message",
        "either",
        "the kernel prints a message, whatever its level (tracepoint printk:console)",
        (_f("text", "str", "the message"),),
    ),
    EventType(
        "mark",
        "either",
        "the harness marks a phase through trace_marker: armed, attach, load, loaded, detach, disarm",
        (_f("text", "str", "blkproof:<phase>"),),
    ),
)

_XEN = (
    EventType(
        "xen_map",
        "xen",
        "Xen mapped a grant (TRC_MEM_PAGE_GRANT_MAP)",
        (_f("dom", "u16", "domid that granted it"),),
    ),
    EventType(
        "xen_unmap",
        "xen",
        "Xen is unmapping a grant (TRC_MEM_PAGE_GRANT_UNMAP)",
        (_f("dom", "u16", "domid that granted it"),),
    ),
)

EVENTS: Final[dict[str, EventType]] = {kind.name: kind for kind in (*_BACKEND, *_FRONTEND, *_EITHER, *_XEN)}
"""Every kind of event by its name."""
