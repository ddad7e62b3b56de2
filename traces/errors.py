"""What can be wrong with a capture.

::

    CaptureError
    ├── NotACapture        the directory is no capture, or was never sealed
    ├── CaptureVersion     sealed with a schema that this version does not read
    ├── CaptureAltered     a file is missing, extra, cut off or changed since the sealing
    ├── ClockError         the recorders did not share one clock
    └── DecodeError        bytes that do not follow their format

All of them mean that the evidence is unusable, never that the protocol was broken.
"""

from __future__ import annotations

from pathlib import Path

_SHOWN_CHARACTERS = 200


class CaptureError(Exception):
    """A capture, or a file of it, can't be used as evidence.

    ``path`` is the file, ``offset`` the byte in it (or None), ``expected`` and ``got`` say what should
    have been there and what was, ``advice`` what the user can do.  The message is one line.
    """

    def __init__(
        self, path: Path | str, *, expected: str, got: str, offset: int | None = None, advice: str = ""
    ) -> None:
        self.path = Path(path)
        self.offset = offset
        self.expected = expected
        self.got = got
        self.advice = advice
        place = f"{path}" if offset is None else f"{path} at byte {offset}"
        message = f"{place}: expected {expected}, found {got}"
        super().__init__(one_line(f"{message}; {advice}" if advice else message))


class NotACapture(CaptureError):  # noqa: N818 - reads as what it says
    """There is no sealed capture here: wrong directory, or the run ended before the sealing."""


class CaptureVersion(CaptureError):  # noqa: N818 - reads as what it says
    """The capture was sealed by another version of blkproof, with another schema."""


class CaptureAltered(CaptureError):  # noqa: N818 - reads as what it says
    """The directory is not what was sealed."""


class ClockError(CaptureError):
    """Times of different recorders can't be compared."""


class DecodeError(CaptureError):
    """A file breaks its own format: it was damaged before the sealing, or recorded by another tool."""


def one_line(text: str) -> str:
    """Return ``text`` with everything unprintable escaped, fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Return ``value`` quoted and cut to a length fit for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
