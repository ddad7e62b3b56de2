r"""The contents of xenstore, as ``xenstore-ls -fp`` lists them, and xenstored's own log of changes.

References: Xen 4.17, tools/xenstore/xs_lib.c, sanitise_value(): what is not printable ASCII is written as
``\t \n \r \\``, as octal or as ``\xNN``; a quotation mark is not escaped.  tools/xenstore/xenstored_core.c,
trace_io(): a request is logged as it is, with spaces for NULs; Xen 4.20 (tools/xenstored/core.c) also tells
its domain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blkproof.traces.errors import DecodeError, shown
from blkproof.traces.text import printable

_LINE = re.compile(r'(?P<path>/[^ =]*) = "(?P<value>.*)"(?: +\([^()]*\))?')
_CHANGE = re.compile(
    r"^(?:io: )?IN (?P<connection>0x[0-9a-f]+) (?:\(d\d+\) )?"
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d) (?P<time>[\d:]+) "
    r"(?P<operation>WRITE|RM|MKDIR) \((?P<path>[^ \n]*)(?: (?P<value>.*))?\)$",
    re.MULTILINE,
)
_ESCAPE = re.compile(rb"\\(?:x(?P<hex>[0-9a-fA-F]{1,2})|(?P<octal>[0-7]{1,3})|(?P<letter>.))", re.DOTALL)
_LETTERS: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


@dataclass(frozen=True, slots=True)
class Change:
    """One request to change xenstore: when (dom0's clock, ISO 8601), on which connection, and what.

    A path that does not start with a slash is below the home of the connection's domain.  The log is text
    without escapes, so a guest can forge lines in it: take it as a help for people, not as evidence.
    """

    second: str
    connection: str
    operation: str
    path: str
    value: str


def parse_changes(text: str) -> list[Change]:
    """Return the requests to write, make and remove nodes in xenstored's access log, in their order."""
    return [
        Change(
            "{}-{}-{}T{}".format(*match.group("year", "month", "day", "time")),
            match["connection"],
            match["operation"],
            printable(match["path"].encode("utf-8", errors="replace")),
            printable((match["value"] or "").encode("utf-8", errors="replace")),
        )
        for match in _CHANGE.finditer(text)
    ]


def parse_listing(text: str, path: Path) -> dict[str, str]:
    """Return ``{full path: value}`` of a listing; ``path`` is for the message."""
    values = {}
    offset = 0
    for line in text.split("\n"):
        if line:
            match = _LINE.fullmatch(line)
            if match is None:
                raise DecodeError(
                    path, offset=offset, expected="a line 'path = \"value\"   (permissions)'", got=shown(line)
                )
            values[match["path"]] = printable(unescape(match["value"]))
        offset += len(line.encode("utf-8", errors="replace")) + 1
    return values


def unescape(value: str) -> bytes:
    """Return the bytes that xenstore-ls printed as ``value``."""
    return _ESCAPE.sub(_raw, value.encode("utf-8", errors="replace"))


def _raw(match: re.Match[bytes]) -> bytes:
    if match["hex"] is not None:
        return bytes([int(match["hex"], 16)])
    if match["octal"] is not None:
        return bytes([int(match["octal"], 8) & 0xFF])
    return _LETTERS.get(match["letter"], match["letter"])
