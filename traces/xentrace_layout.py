"""The binary format of xentrace, as tables.

References: Xen 4.17, xen/include/public/trace.h (struct t_rec, event ids), xen/common/trace.c
(__insert_record, insert_lost_records), xen/common/grant_table.c, tools/xentrace/xentrace.c (write_buffer).

The file has no header.  It is a row of windows: a CPU_CHANGE record, then as many bytes of one physical
CPU's records as it says.  A record is a header word, the TSC (low word first) if the header says so, and up
to seven more words.
"""

from __future__ import annotations

from typing import Final

WORD_BYTES: Final = 4

EVENT_MASK: Final = 0x0FFFFFFF
"""Header bits 0-27: class << 16, subclass << 12, id."""
EXTRA_SHIFT: Final = 28
EXTRA_MASK: Final = 0x7
"""Header bits 28-30: number of extra words."""
TSC_SHIFT: Final = 31
"""Header bit 31: the TSC follows."""
TSC_WORDS: Final = 2

TRC_LOST_RECORDS: Final = 0x0001F001
TRC_TRACE_WRAP_BUFFER: Final = 0x0001F002
TRC_TRACE_CPU_CHANGE: Final = 0x0001F003
TRC_MEM_PAGE_GRANT_MAP: Final = 0x0010F001
TRC_MEM_PAGE_GRANT_UNMAP: Final = 0x0010F002

ID_MASK: Final = 0xFFF
"""The id inside its subclass."""
HIGHEST_DECODED_ID: Final = 3
"""All decoded events have an id up to this in their subclass: one quick test excludes most others."""

CPU_CHANGE_HEADER: Final = 2 << EXTRA_SHIFT | TRC_TRACE_CPU_CHANGE
CPU_CHANGE_CPU: Final = 1
CPU_CHANGE_SIZE: Final = 2
"""Bytes of records that follow, without the CPU_CHANGE itself."""
CPU_CHANGE_WORDS: Final = 3
MAX_CPUS: Final = 4096
"""No Xen has more physical CPUs (its NR_CPUS ends at 4095)."""

GRANT_MAP_HEADER: Final = 1 << TSC_SHIFT | 1 << EXTRA_SHIFT | TRC_MEM_PAGE_GRANT_MAP
GRANT_UNMAP_HEADER: Final = 1 << TSC_SHIFT | 1 << EXTRA_SHIFT | TRC_MEM_PAGE_GRANT_UNMAP
GRANT_DOM: Final = 3
GRANT_WORDS: Final = 4
MAX_DOMID: Final = 0x7FFF

LOST_RECORDS_HEADER: Final = 1 << TSC_SHIFT | 4 << EXTRA_SHIFT | TRC_LOST_RECORDS
LOST_COUNT: Final = 3
LOST_FIRST_TSC: Final = 5
"""Low word of the time of the first lost record; word 4 is the domid and vCPU at the time of the report."""
LOST_WORDS: Final = 7

NAMES: Final = {
    TRC_LOST_RECORDS: "LOST_RECORDS",
    TRC_TRACE_WRAP_BUFFER: "TRACE_WRAP_BUFFER",
    TRC_TRACE_CPU_CHANGE: "TRACE_CPU_CHANGE",
    TRC_MEM_PAGE_GRANT_MAP: "MEM_PAGE_GRANT_MAP",
    TRC_MEM_PAGE_GRANT_UNMAP: "MEM_PAGE_GRANT_UNMAP",
    0x0010F003: "MEM_PAGE_GRANT_TRANSFER",
    0x0010F004: "MEM_SET_P2M_ENTRY",
    0x0010F005: "MEM_DECREASE_RESERVATION",
}


def name(event: int) -> str:
    """Return the name of an event id as in trace.h, or the id in hex."""
    return NAMES.get(event, f"{event:#010x}")
