"""Listings of xenstore."""

from pathlib import Path

import pytest
from blkproof.traces.errors import DecodeError
from blkproof.traces.text import printable
from blkproof.traces.xenstore import Change, parse_changes, parse_listing, unescape
from hypothesis import given
from hypothesis import strategies as st

PATH = Path("xenstore/before.txt")


def escaped(raw):
    """What xenstore-ls prints for a value."""
    short = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}
    out = ""
    for number, byte in enumerate(raw):
        following = raw[number + 1 : number + 2]
        if byte in short:
            out += short[byte]
        elif 32 <= byte < 127:
            out += chr(byte)
        elif byte < 8 and not following.isdigit():
            out += f"\\{byte:o}"
        else:
            out += f"\\x{byte:02x}"
    return out


def test_paths_values_and_permissions():
    text = (
        '/local/domain/1/device/vbd/51712/state = "4"   (n1,r0)\n'
        '/local/domain/1/data = ""   (n0,r1)\n'
        '/local/domain/1/name = "say "hi" (now)"   (n0)\n'
        '/local/domain/1/plain = "x"\n'
    )
    assert parse_listing(text, PATH) == {
        "/local/domain/1/device/vbd/51712/state": "4",
        "/local/domain/1/data": "",
        "/local/domain/1/name": 'say "hi" (now)',
        "/local/domain/1/plain": "x",
    }


@given(st.binary(max_size=40))
def test_values_survive_the_escapes(raw):
    assert unescape(escaped(raw)) == raw
    listing = f'/a/b = "{escaped(raw)}"   (n0)\n'
    assert parse_listing(listing, PATH) == {"/a/b": printable(raw)}


def test_a_line_that_is_no_entry_is_named_by_its_place():
    with pytest.raises(DecodeError, match=r"xenstore/before\.txt at byte 12"):
        parse_listing('/a/b = "cd"\n/a/c = "cut of', PATH)


@given(st.binary())
def test_printable_is_printable_and_unambiguous(raw):
    text = printable(raw)
    assert text.isprintable()
    assert text.isascii()
    back = text.encode().decode("unicode_escape").encode("latin-1")
    assert back == raw.partition(b"\0")[0]


def test_changes_are_found_among_all_that_xenstored_logs():
    log = """
CREATE connection 0x55b36f579dc0
wrl: dom    0     16  msec      10000 credit       -6800 reserve          0 discard
IN 0x55b36f579dc0 20261120 09:05:32 WATCH (memory/target FFFFFFFF82BB1520 )
OUT 0x55b36f579dc0 20261120 09:05:32 WRITE (OK )
IN 0x55b36f579dc0 20261120 09:05:32 WRITE (control/feature-poweroff 1)
IN 0x55b36f58c350 20261120 09:05:43 WRITE (/local/domain/1/data two (words))
IN 0x55b36f58c350 20261120 09:05:44 RM (/local/domain/0/backend/vbd/1/51712 )
IN 0x55b36f58c350 20261120 09:05:45 MKDIR (/local/domain/0/backend/vbd/1/51712 )
IN 0x55b36f58c350 20261120 09:05:45 SET_PERMS (/local/domain/0/backend n0 r1 )
"""
    assert parse_changes(log) == [
        Change("2026-11-20T09:05:32", "0x55b36f579dc0", "WRITE", "control/feature-poweroff", "1"),
        Change("2026-11-20T09:05:43", "0x55b36f58c350", "WRITE", "/local/domain/1/data", "two (words)"),
        Change("2026-11-20T09:05:44", "0x55b36f58c350", "RM", "/local/domain/0/backend/vbd/1/51712", ""),
        Change("2026-11-20T09:05:45", "0x55b36f58c350", "MKDIR", "/local/domain/0/backend/vbd/1/51712", ""),
    ]


def test_changes_are_found_in_a_newer_xenstoreds_log_too():
    log = """
obj: CREATE connection 0x562e6bb80630
io: IN 0x562e6bb72400 (d1) 20261120 09:36:11 WRITE (data/armed 1)
io: OUT 0x562e6bb72400 (d1) 20261120 09:36:11 WRITE (OK )
io: IN 0x562e6bb7a060 (d0) 20261120 09:36:12 RM (/libxl/1/device/vbd/51712 )
io: OUT(START) 0x562e6bb7a060 (d0) 20261120 09:36:12 RM (OK )
io: OUT(END) 0x562e6bb7a060 (d0) 20261120 09:36:12 RM (OK )
"""
    assert parse_changes(log) == [
        Change("2026-11-20T09:36:11", "0x562e6bb72400", "WRITE", "data/armed", "1"),
        Change("2026-11-20T09:36:12", "0x562e6bb7a060", "RM", "/libxl/1/device/vbd/51712", ""),
    ]
