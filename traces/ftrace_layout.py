"""The binary format of ftrace's per-CPU ring-buffer pages, as tables.

References: Linux 6.1, include/linux/ring_buffer.h (struct ring_buffer_event, enum ring_buffer_type),
kernel/trace/ring_buffer.c (struct buffer_data_page, RB_MISSED_EVENTS, ring_buffer_read_page, check_buffer,
rb_fix_abs_ts), kernel/trace/trace.h (struct trace_entry, struct print_entry); little endian, 64 bits.

A page is the time of its first event (u64), the bytes of events in it with two flags (u64), then the
events.  An event is a word of 5 bits ``type_len`` and 27 bits ``time_delta``, then its data.
"""

from __future__ import annotations

from typing import Final

from blkproof.traces.ftrace_format import FormatField

WORD_BYTES: Final = 4

PAGE_TIME: Final = 0
PAGE_COMMIT: Final = 8
MISSED_EVENTS: Final = 1 << 31
"""Flag in commit: events before this page were overwritten."""
MISSED_STORED: Final = 1 << 30
"""Flag in commit: their number, a u64, follows the events of the page."""
COMMIT_MASK: Final = MISSED_STORED - 1

TYPE_LEN_MASK: Final = 0x1F
TIME_DELTA_SHIFT: Final = 5
DATA_TYPE_LEN_MAX: Final = 28
"""Up to this, data are 4 * type_len bytes; 0 says that a word with the length (its own included) follows."""
TYPE_PADDING: Final = 29
"""A discarded event whose length is in the next word; with a time_delta of 0, the empty rest of a page."""
DISCARDED_DELTA: Final = 1
"""time_delta of a discarded event whose real one was 0: it does not move time."""
TYPE_TIME_EXTEND: Final = 30
"""The next word holds the bits of a delta from TIME_EXTEND_SHIFT on."""
TYPE_TIME_STAMP: Final = 31
"""The same for an absolute time, whose bits above ABSOLUTE_BITS are those of the time before."""
TIME_EXTEND_SHIFT: Final = 27
ABSOLUTE_BITS: Final = 59

ENTRY_TYPE_MASK: Final = 0xFFFF
"""common_type: low half of the first word of a record."""
ENTRY_PID_WORD: Final = 1
"""common_pid: second word of a record."""
ENTRY_WORDS: Final = 2
ENTRY_FIELDS: Final = (
    FormatField("common_type", 0, 2, False, 0, False),
    FormatField("common_pid", 4, 4, True, 0, False),
)
"""What every format file must agree with."""

NUMBER_BYTES: Final = (1, 2, 4, 8)
"""Sizes of a number in a record."""

PLUS: Final = "_plus"
"""A field F_plus is to be added to F: a probe can't add."""

DATA_LOC_OFFSET_MASK: Final = 0xFFFF
DATA_LOC_LENGTH_SHIFT: Final = 16
"""A ``__data_loc`` word: where in the record the string is (low half) and its length (high half)."""

PRINT_ID: Final = 5
"""TRACE_PRINT: what a write to trace_marker records."""
PRINT_TEXT: Final = 16
"""Byte of the record at which its text starts."""

CLOCK: Final = "x86-tsc"
"""The only trace clock that Xen and all domains share."""
STANDARD: Final = {("printk", "console"): ("message", {"msg": "text"})}
"""Events of the kernel itself, by group and name: their names in the schema, and those of their fields."""
GROUP: Final = "blkproof"
"""Group of our probes: an event in it has the name of an event of the schema."""
