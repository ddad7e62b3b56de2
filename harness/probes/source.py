"""The text of a driver, read to find the lines of a function that a probe is to sit on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from blkproof.harness.probes.term import ExpressionError

_SILENT: Final = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
"""Comments and strings: their words are not the program's."""
_END: Final = "}"
"""A function ends with it in the first column, as the kernel's style has it."""


def lines_with(root: Path, recorded: Path, start: int, words: str) -> frozenset[int]:
    """Return the numbers of the lines of a function on which all of ``words`` are; counted from 1.

    ``recorded`` is the file as the compiler names it, which is looked up below ``root`` by its last parts;
    the function begins on line ``start``.

    :raise ExpressionError: when there is no such text or line.
    """
    text = _SILENT.sub(lambda match: "\n" * match[0].count("\n"), _text(root, recorded))
    wanted = [re.compile(rf"\b{re.escape(word)}\b") for word in words.split()]
    found = set()
    for number, line in enumerate(text.split("\n")[start - 1 :], start):
        if all(word.search(line) for word in wanted):
            found.add(number)
        if line.startswith(_END):
            break
    if not found:
        raise ExpressionError(f"no line of it has {words!r} in {recorded.name}; was it rewritten?")
    return frozenset(found)


def _text(root: Path, recorded: Path) -> str:
    parts = recorded.relative_to(recorded.anchor).parts
    for skipped in range(len(parts)):
        found = list(root.rglob(str(Path(*parts[skipped:]))))
        if len(found) == 1:
            return found[0].read_text(errors="replace")
    raise ExpressionError(f"the source {recorded} is not below {root}, so its lines can't be found")
