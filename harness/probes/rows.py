"""The table of probes: one row for each event of the schema that a kernel records.

To add one: describe the event in ``traces/events.py``, then add its row here.  Expressions use the names
of the drivers' source (Linux v6.1, drivers/block/xen-blkback/blkback.c and xenbus.c,
drivers/block/xen-blkfront.c, drivers/xen/, arch/x86/xen/p2m.c).
"""

from __future__ import annotations

from typing import Final

from blkproof.harness.probes import inlined
from blkproof.harness.probes.compiler import KERNEL, Probe
from blkproof.traces.events import (
    MAP_OP_WORDS,
    PUSHED_IN,
    SEG_BUF_WORDS,
    SEGMENTS_IN,
    UNMAP_OP_WORDS,
    UNMAPS_IN,
)

_BACK: Final = "xen_blkback"
_FRONT: Final = "xen_blkfront"

_BACK_INDICES: Final = {
    "req_cons": "ring->blk_rings.common.req_cons",
    "rsp_prod_pvt": "ring->blk_rings.common.rsp_prod_pvt",
    "nr_ents": "ring->blk_rings.common.nr_ents",
    "s_req_prod": "ring->blk_rings.common.sring->req_prod",
    "s_req_event": "ring->blk_rings.common.sring->req_event",
    "s_rsp_prod": "ring->blk_rings.common.sring->rsp_prod",
    "s_rsp_event": "ring->blk_rings.common.sring->rsp_event",
}
_TREE: Final = {
    "pgc": "ring->persistent_gnt_c",
    "in_use": "ring->persistent_gnt_in_use.counter",
}
_FRONT_INDICES: Final = {
    "req_prod_pvt": "rinfo->ring.req_prod_pvt",
    "rsp_cons": "rinfo->ring.rsp_cons",
    "nr_ents": "rinfo->ring.nr_ents",
}
_FRONT_SHARED: Final = {
    "s_req_prod": "rinfo->ring.sring->req_prod",
    "s_req_event": "rinfo->ring.sring->req_event",
    "s_rsp_prod": "rinfo->ring.sring->rsp_prod",
    "s_rsp_event": "rinfo->ring.sring->rsp_event",
}
_PAGE_FILLED: Final = "kunmap_atomic setup segments"
"""Only an indirect request comes here: fetching through a null pointer would cost a fault each time."""
_DEV_ID: Final = "((struct blkfront_ring_info *)dev_id)"
_RETRIED: Final = "container_of(work, struct gntab_unmap_queue_data, gnttab_work)"
_INDIRECT: Final = "container_of(pages, struct pending_req, indirect_pages)"


def _words(array: str, elements: range, words: int) -> str:
    """Write some elements of an array of structs, of so many 64-bit words each."""
    return f"((u64 *){array})[{elements.start * words}:{elements.stop * words}]"


def _request(request: str) -> dict[str, str]:
    """Write the fields of a request of the ring."""
    return {
        "op": f"{request}->operation",
        "id": f"{request}->u.rw.id",
        "nr": f"{request}->u.rw.nr_segments",
        "handle": f"{request}->u.rw.handle",
        "sector": f"{request}->u.rw.sector_number",
        "seg": f"((u64 *){request}->u.rw.seg)[:11]",
        "indirect_op": f"{request}->u.indirect.indirect_op",
        "indirect_nr": f"{request}->u.indirect.nr_segments",
        "indirect_handle": f"{request}->u.indirect.handle",
        "indirect_gref": f"{request}->u.indirect.indirect_grefs[:8]",
    }


def _page(event: str) -> dict[str, str]:
    """Write what an event has of a page with segments."""
    return {
        "id": "setup.ring_req->u.rw.id",
        "nr": "setup.ring_req->u.indirect.nr_segments",
        "page": _words("setup.segments", PUSHED_IN[event], 1),
    }


_BACKEND: Final = (
    Probe(
        "be_request",
        _BACK,
        "dispatch_rw_block_io",
        {
            "ring": "ring",
            "dom": "ring->blkif->domid",
            "vbd": "ring->blkif->vbd.handle",
            **_request("req"),
            **_BACK_INDICES,
            **_TREE,
        },
        callers={"ring": "__do_block_io_op::ring"},
    ),
    Probe(
        "be_discard",
        _BACK,
        "dispatch_discard_io",
        {
            "ring": "ring",
            "dom": "ring->blkif->domid",
            "op": "req->operation",
            "id": "req->u.discard.id",
            "flag": "req->u.discard.flag",
            "sector": "req->u.discard.sector_number",
            "nr_sectors": "req->u.discard.nr_sectors",
            **_BACK_INDICES,
        },
    ),
    Probe(
        "be_other",
        _BACK,
        "dispatch_other_io",
        {
            "ring": "ring",
            "dom": "ring->blkif->domid",
            "op": "req->operation",
            "id": "req->u.other.id",
            **_BACK_INDICES,
        },
    ),
    Probe(
        "be_indirect",
        _BACK,
        "xen_blkbk_unmap",
        {
            "ring": "ring",
            "n": "num",
            "id": f"{_INDIRECT}->id",
            "op": f"{_INDIRECT}->operation",
            "nr": f"{_INDIRECT}->nr_segs",
            "seg": _words(f"{_INDIRECT}->seg", SEGMENTS_IN["be_indirect"], SEG_BUF_WORDS),
        },
    ),
    *(
        Probe(
            event,
            _BACK,
            "xen_blkbk_unmap",
            {
                "id": f"{_INDIRECT}->id",
                "nr": f"{_INDIRECT}->nr_segs",
                "seg": _words(f"{_INDIRECT}->seg", SEGMENTS_IN[event], SEG_BUF_WORDS),
            },
            when=f"nr > {SEGMENTS_IN[event].start}",
            asleep_until={"be_request": f"op == 6 && indirect_nr > {SEGMENTS_IN[event].start}"},
        )
        for event in ("be_indirect_more", "be_indirect_rest")
    ),
    Probe("be_map", _BACK, "xen_blkbk_map", {"ring": "ring", "n": "num", "ro": "ro", **_TREE}),
    Probe("be_map_ret", _BACK, "xen_blkbk_map", {"rc": "$retval"}, returns=True),
    Probe("be_get", _BACK, "get_persistent_gnt", {"ring": "ring", "gref": "gref"}),
    Probe(
        "be_get_ret",
        _BACK,
        "get_persistent_gnt",
        {"pgnt": "$retval", "gref": "$retval->gnt", "handle": "$retval->handle"},
        returns=True,
        otherwise=inlined.BE_GET_RET,
    ),
    Probe(
        "be_add",
        _BACK,
        "add_persistent_gnt",
        {"ring": "ring", "gref": "persistent_gnt->gnt", "handle": "persistent_gnt->handle", **_TREE},
    ),
    Probe(
        "be_add_ret",
        _BACK,
        "add_persistent_gnt",
        {"rc": "$retval"},
        returns=True,
        otherwise=inlined.BE_ADD_RET,
    ),
    Probe(
        "be_put",
        _BACK,
        "put_persistent_gnt",
        {
            "ring": "ring",
            "gref": "persistent_gnt->gnt",
            "handle": "persistent_gnt->handle",
            "active": "persistent_gnt->active",
        },
        callers={"ring": "xen_blkbk_unmap_prepare::ring"},
    ),
    Probe("be_purge", _BACK, "purge_persistent_gnt", {"ring": "ring", **_TREE}),
    Probe("be_purge_work", _BACK, "xen_blkbk_unmap_purged_grants", {"work": "work"}),
    Probe(
        "be_free_persistent",
        _BACK,
        "free_persistent_gnts",
        {"ring": "ring", "num": "num | ring->persistent_gnt_c", **_TREE},  # passed in older kernels
    ),
    Probe(
        "be_submit",
        _BACK,
        "dispatch_rw_block_io",
        {
            "ring": "pending_req->ring",
            "id": "pending_req->id",
            "nbio": "nbio",
            "opf": "(*pending_req->biolist)->bi_opf",
            "sector": "(*pending_req->biolist)->bi_iter.bi_sector",
            "bytes": "(*pending_req->biolist)->bi_iter.bi_size",
        },
        at="blk_start_plug plug",
    ),
    Probe(
        "be_io_end",
        _BACK,
        "__end_block_io_op",
        {"ring": "pending_req->ring", "id": "pending_req->id", "error": "error"},
    ),
    Probe(
        "be_response",
        _BACK,
        "make_response",
        {
            "ring": "ring",
            "dom": "ring->blkif->domid",
            "id": "resp->id",
            "op": "resp->operation",
            "status": "resp->status",
            "irq": "ring->irq",
            **_BACK_INDICES,
            **_TREE,
        },
        at="common rsp_prod_pvt",
    ),
    Probe(
        "be_connect",
        _BACK,
        "xen_update_blkif_status",
        {
            "dom": "blkif->domid",
            "vbd": "blkif->vbd.handle",
            "persistent": "blkif->vbd.feature_gnt_persistent",
            "protocol": "blkif->blk_protocol",
            "nr_rings": "blkif->nr_rings",
            "nr_ring_pages": "blkif->nr_ring_pages",
            "feature_persistent": "feature_persistent",
            "max_persistent_grants": "max_pgrants",
            "max_buffer_pages": "max_buffer_pages",
            "max_queues": "xenblk_max_queues",
            "max_ring_page_order": "xen_blkif_max_ring_order",
        },
    ),
    Probe("be_thread_start", _BACK, "xen_blkif_schedule", {"ring": "arg"}),
    Probe(
        "be_thread_stop",
        _BACK,
        "xen_blkif_schedule",
        {"ring": "arg"},
        at="flush_work persistent_purge_work",
    ),
    Probe("be_disconnect", _BACK, "xen_blkif_disconnect", {"dom": "blkif->domid"}),
    Probe(
        "be_fe_changed",
        _BACK,
        "frontend_changed",
        {"node": "dev->nodename", "state": "frontend_state"},
    ),
    Probe(
        "gt_map",
        KERNEL,
        "set_foreign_p2m_mapping",
        {"n": "count", "ops": f"((u64 *)map_ops)[:{11 * MAP_OP_WORDS}]"},
    ),
    Probe(
        "gt_unmap",
        KERNEL,
        "clear_foreign_p2m_mapping",
        {
            "n": "count",
            "ops": _words("unmap_ops", UNMAPS_IN["gt_unmap"], UNMAP_OP_WORDS),
            "refs": "pages[:1]->_refcount.counter",
        },
    ),
    *(
        Probe(
            event,
            KERNEL,
            "clear_foreign_p2m_mapping",
            {
                "n": "count",
                "ops": _words("unmap_ops", UNMAPS_IN[event], UNMAP_OP_WORDS),
                **({"refs": "pages[1:11]->_refcount.counter"} if event == "gt_unmap_few" else {}),
            },
            when=f"n > {UNMAPS_IN[event].start}",
            asleep_until={
                "gt_unmap_async": f"n > {UNMAPS_IN[event].start}",
                "be_indirect": f"n > {UNMAPS_IN[event].start}",
            },
        )
        for event in ("gt_unmap_few", "gt_unmap_more", "gt_unmap_many", "gt_unmap_rest")
    ),
    Probe(
        "gt_map_ring",
        KERNEL,
        "xenbus_map_ring_valloc",
        {"node": "dev->nodename", "n": "nr_grefs", "gref": "*gnt_refs"},
    ),
    Probe("gt_unmap_ring", KERNEL, "xenbus_unmap_ring_vfree", {"node": "dev->nodename"}),
    Probe(
        "gt_unmap_async",
        KERNEL,
        "__gnttab_unmap_refs_async",
        {"item": "item", "n": "item->count", "age": "item->age"},
    ),
    Probe(
        "gt_unmap_retry",
        KERNEL,
        "gnttab_unmap_work",
        {
            "item": _RETRIED,
            "n": f"{_RETRIED}->count",
            "age": f"{_RETRIED}->age",
            "refs": f"{_RETRIED}->pages[:11]->_refcount.counter",
        },
    ),
)

_FRONTEND: Final = (
    Probe(
        "fe_queue",
        _FRONT,
        "blkif_queue_rw_req",
        {
            "rinfo": "rinfo",
            "vdev": "rinfo->dev_info->vdevice",
            "flags": "req->cmd_flags",
            "sector": "req->__sector",
            "bytes": "req->__data_len",
            "nr_phys": "req->nr_phys_segments",
            **_FRONT_INDICES,
            "pgc": "rinfo->persistent_gnts_c",
            "persistent": "rinfo->dev_info->feature_persistent",
            "max_indirect": "rinfo->dev_info->max_indirect_segments",
        },
    ),
    Probe(
        "fe_discard",
        _FRONT,
        "blkif_queue_discard_req",
        {
            "rinfo": "rinfo",
            "id": "rinfo->shadow_free",
            "sector": "req->__sector",
            "bytes": "req->__data_len",
            **_FRONT_INDICES,
        },
    ),
    Probe(
        "fe_push",
        _FRONT,
        "blkif_queue_rw_req",
        {
            "rinfo": "rinfo",
            **_request("setup.ring_req"),
            "copy": "setup.need_copy",
            "irq": "rinfo->irq",
            **_FRONT_INDICES,
            **_FRONT_SHARED,
        },
        at="final_ring_req ring_req",
        callers={"rinfo": "setup.rinfo"},
    ),
    Probe("fe_page", _FRONT, "blkif_queue_rw_req", _page("fe_page"), at=_PAGE_FILLED),
    *(
        Probe(
            event,
            _FRONT,
            "blkif_queue_rw_req",
            _page(event),
            at=_PAGE_FILLED,
            when=f"nr > {PUSHED_IN[event].start}",
            asleep_until={"fe_queue": f"nr_phys > {PUSHED_IN[event].start}"},
        )
        for event in ("fe_page_more", "fe_page_rest")
    ),
    Probe(
        "fe_irq",
        _FRONT,
        "blkif_interrupt",
        {
            "rinfo": "dev_id",
            "req_prod_pvt": f"{_DEV_ID}->ring.req_prod_pvt",
            "rsp_cons": f"{_DEV_ID}->ring.rsp_cons",
            "nr_ents": f"{_DEV_ID}->ring.nr_ents",
            "s_rsp_prod": f"{_DEV_ID}->ring.sring->rsp_prod",
            "s_rsp_event": f"{_DEV_ID}->ring.sring->rsp_event",
        },
    ),
    Probe(
        "fe_response",
        _FRONT,
        "blkif_completion",
        {
            "rinfo": "rinfo",
            "id": "bret->id",
            "op": "bret->operation",
            "status": "bret->status",
            "rsp_cons": "rinfo->ring.rsp_cons",
        },
        callers={"rinfo": inlined.CALLERS_RINFO},
    ),
    Probe(
        "fe_recycle",
        _FRONT,
        "add_id_to_freelist",
        {"rinfo": "rinfo", "id": "id"},
        asleep_until=inlined.DISCARDED,
        otherwise=inlined.FE_RECYCLE,
    ),
    Probe(
        "fe_connect",
        _FRONT,
        "blkfront_setup_indirect",
        {
            "rinfo": "rinfo",
            "vdev": "rinfo->dev_info->vdevice",
            "persistent": "rinfo->dev_info->feature_persistent",
            "bounce": "rinfo->dev_info->bounce",
            "max_indirect": "rinfo->dev_info->max_indirect_segments",
            "nr_rings": "rinfo->dev_info->nr_rings",
            "nr_ring_pages": "rinfo->dev_info->nr_ring_pages",
            "feature_persistent": "feature_persistent",
            "trusted": "xen_blkif_trusted",
            "max_indirect_segments": "xen_blkif_max_segments",
            "max_queues": "xen_blkif_max_queues",
            "max_ring_page_order": "xen_blkif_max_ring_order",
        },
    ),
    Probe("fe_free", _FRONT, "blkif_free_ring", {"rinfo": "rinfo"}),
    Probe(
        "fe_be_changed",
        _FRONT,
        "blkback_changed",
        {"node": "dev->nodename", "state": "backend_state"},
    ),
    Probe(
        "gt_grant",
        KERNEL,
        "gnttab_grant_foreign_access_ref",
        {"ref": "ref", "dom": "domid", "frame": "frame", "ro": "readonly"},
    ),
    Probe("gt_try_end", KERNEL, "gnttab_try_end_foreign_access", {"ref": "ref"}),
    Probe("gt_end", KERNEL, "gnttab_end_foreign_access", {"ref": "ref"}),
    Probe("gt_deferred", KERNEL, "gnttab_handle_deferred", {"timer": "unused"}),
    Probe("gt_put_free", KERNEL, "put_free_entry_locked", {"ref": "ref"}),
)

_EITHER: Final = (
    Probe(
        "xs_write",
        KERNEL,
        "xenbus_write",
        {"xbt": "t.id", "dir": "dir", "node": "node", "value": "string"},
    ),
    Probe("xs_switch", KERNEL, "xenbus_switch_state", {"node": "dev->nodename", "state": "state"}),
    Probe("ev_notify", KERNEL, "notify_remote_via_irq", {"irq": "irq"}),
    Probe("ev_eoi", KERNEL, "xen_irq_lateeoi", {"irq": "irq", "flags": "eoi_flags"}),
)

ROWS: Final = (*_BACKEND, *_FRONTEND, *_EITHER)
"""Every probe."""
