"""Patches as maintainers have them: a diff, a mail with one, or a series of mails in an mbox.

A mail may be quoted-printable or base64. Letters without a diff (cover letters, replies) are no patches.
"""

import email
import email.policy
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from io import BytesIO
from itertools import takewhile
from pathlib import Path

from blkproof.images.errors import DriverError

_GZIP = b"\x1f\x8b"
"""How a compressed mbox begins, the form in which archives of lists give one away."""
_ENVELOPE = re.compile(rb"^From \S+ .*\d\d:\d\d.*\n", re.MULTILINE)
"""The line before each mail of an mbox; a sentence that begins with From has no time of day in it."""
_MAIL = re.compile(rb"\A(?:[A-Za-z][A-Za-z0-9-]*:.*\n(?:[ \t].*\n)*)+\r?\n")
_TAGS = re.compile(r"^\s*(?:\[[^]]*\]\s*)+")
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_GIT = re.compile(
    rb"(?:old|new|deleted file|new file) mode |(?:similarity|dissimilarity) index |index |"
    rb"(?:copy|rename) (?:from|to) "
)
_NAME = re.compile(r"(?:---|\+\+\+|rename to|copy to) ([^\t\n]*)")
"""A file in a change's head, without the time that diff puts behind it."""
_DRIVER = re.compile(r"(?:^|/)(drivers/block/xen-blk)")


@dataclass(frozen=True)
class Change:
    """What a patch does to one file.

    `path` is relative to the kernel's top directory, after `strip` components of the name in `text`.
    """

    path: str
    strip: int
    text: bytes


@dataclass(frozen=True)
class Patch:
    """One patch: the file that it came in, the subject of its mail ("" for a plain diff), its changes."""

    file: Path
    subject: str
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        """Return the patch's name for a user."""
        return f'{self.file}: "{self.subject}"' if self.subject else str(self.file)


def read_patches(file: Path) -> list[Patch]:
    """Return the patches in a file, in their order; DriverError if it holds none."""
    try:
        text = file.read_bytes()
        if text.startswith(_GZIP):
            text = gzip.decompress(text)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DriverError(f"{file}: cannot be read as a patch: {why}") from error
    found = [
        Patch(file, subject, changes)
        for subject, body in _letters(text)
        if (changes := tuple(_changes(_of_unix(body), f'{file}: "{subject}"' if subject else str(file))))
    ]
    if not found:
        raise DriverError(f"{file}: no patch: there is no unified diff in it, neither plain nor in a mail")
    return found


def _letters(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the subject and the words of each mail; a plain diff is one without a subject."""
    _, *mails = _ENVELOPE.split(text)
    if not mails and not _MAIL.match(text):
        yield "", text
        return
    for mail in mails or [text]:
        message = email.message_from_bytes(mail, policy=email.policy.default)
        subject = " ".join(str(message["Subject"] or "").split())
        if not subject.lower().startswith("re:"):
            yield _TAGS.sub("", subject), b"\n".join(_texts(message))


def _texts(message: EmailMessage) -> Iterator[bytes]:
    for part in message.walk():
        if part.get_content_maintype() == "text" and part.get_content_subtype() != "html":
            yield part.get_payload(decode=True) or b""  # type: ignore[misc] # bytes when decoded


def _of_unix(text: bytes) -> bytes:
    """Take away the line ends that mail has on its way, unless the diff is of a file that has some."""
    lines = text.count(b"\n")
    return text.replace(b"\r\n", b"\n") if lines and text.count(b"\r\n") >= lines - 1 else text


def _changes(text: bytes, name: str) -> Iterator[Change]:
    """Give the change of each file; what stands between them (a letter, a signature) is left out."""
    lines = BytesIO(text).readlines()
    at = 0
    while at < len(lines):
        end = _end_of_change(lines, at, name)
        if end > at:
            yield _change(lines[at:end])
        at = max(end, at + 1)


def _end_of_change(lines: Sequence[bytes], at: int, name: str) -> int:
    """Return where the change that begins at a line ends; the same place if none begins there."""
    end = at
    if lines[at].startswith(b"diff --git "):
        end = at + 1
        while end < len(lines) and _GIT.match(lines[end]):
            end += 1
        if end < len(lines) and lines[end].startswith((b"GIT binary patch", b"Binary files ")):
            return end + 1
    if b"".join(line[:4] for line in lines[end : end + 2]) != b"--- +++ ":
        return end
    end += 2
    while end < len(lines) and (hunk := _HUNK.match(lines[end])):
        end = _end_of_hunk(lines, end, hunk, name)
    return end


def _end_of_hunk(lines: Sequence[bytes], at: int, hunk: re.Match[bytes], name: str) -> int:
    old, new = (1 if count is None else int(count) for count in hunk.groups())
    end = at + 1
    while old > 0 or new > 0:
        kind = lines[end][:1] if end < len(lines) else b"the end"
        if kind not in (b" ", b"\n", b"-", b"+", b"\\"):  # mailers take the blank from an empty line
            where = lines[at].decode(errors="replace").strip()
            raise DriverError(f"{name}: malformed: the hunk {where} is cut off or wrapped")
        old -= kind in (b" ", b"\n", b"-")
        new -= kind in (b" ", b"\n", b"+")
        end += 1
    if end < len(lines) and lines[end].startswith(b"\\"):
        end += 1
    return end


def _change(lines: Sequence[bytes]) -> Change:
    head = [line.decode(errors="replace") for line in takewhile(lambda line: not _HUNK.match(line), lines)]
    names = [match[1] for line in head if (match := _NAME.match(line)) and match[1] != "/dev/null"]
    written = names[-1] if names else head[0].split()[-1]
    ours = _DRIVER.search(written)
    strip = written[: ours.start(1)].count("/") if ours else int(written.startswith(("a/", "b/")))
    return Change("/".join(written.split("/")[strip:]), strip, b"".join(lines))
