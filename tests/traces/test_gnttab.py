"""Xen's dump of mapped grants."""

from pathlib import Path

import pytest
from blkproof.traces.errors import DecodeError
from blkproof.traces.gnttab import ActiveGrant, parse_dump

from tests.writers.capture_writer import GNTTAB

PATH = Path("gnttab.txt")


def test_entries_are_listed_by_the_granting_domain():
    dump = parse_dump(GNTTAB, PATH)
    assert dump.complete
    assert dump.domains[0] == ()
    assert dump.domains[1][1] == ActiveGrant(11, 0, 0x1F4D0, 0x10000, 0, 0xD0, 0x1D)
    assert [grant.ref for grant in dump.mapped_by(1, 0)] == [8, 11]
    assert dump.mapped_by(1, 5) == dump.mapped_by(9, 0) == ()


def test_the_last_of_several_dumps_counts():
    later = GNTTAB.replace("[0x008]", "[0x099]")
    assert [g.ref for g in parse_dump(GNTTAB + "(XEN) other\n" + later, PATH).domains[1]] == [0x99, 0xB]


def test_a_cut_off_dump_is_not_complete():
    lines = GNTTAB.splitlines(keepends=True)
    for count in range(1, len(lines)):
        assert not parse_dump("".join(lines[:count]), PATH).complete


def test_lines_of_others_between_are_skipped():
    noisy = GNTTAB.replace("(XEN) [0x00b]", "d0: [drm] hello\n(XEN) [  12.5] [0x00b]")
    assert parse_dump(noisy, PATH) == parse_dump(GNTTAB, PATH)


def test_a_console_without_a_dump_is_an_error():
    with pytest.raises(DecodeError, match="debug-keys g"):
        parse_dump("(XEN) hello\n", PATH)
