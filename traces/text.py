"""Bytes that a guest may have chosen, made fit for people to read."""

from __future__ import annotations

from typing import Final

LIMIT_CHARACTERS: Final = 4096
"""Longest string kept: the longest value that xenstore carries."""
_TABLE: Final = [chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in range(256)]
_PLAIN: Final = bytes(b for b in range(0x20, 0x7F) if b != 0x5C)


def printable(raw: bytes) -> str:
    r"""Return the bytes before the first NUL as ASCII; all others, and the backslash, as ``\xNN``."""
    raw = raw.partition(b"\0")[0][:LIMIT_CHARACTERS]
    if not raw.translate(None, _PLAIN):
        return raw.decode("ascii")
    return "".join(map(_TABLE.__getitem__, raw))
