"""Exit codes: five outcomes that are never mixed up, and wrong usage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PASS: Final = 0
FAIL: Final = 1
INCONCLUSIVE: Final = 2
HARNESS: Final = 3
CRASH: Final = 4
USAGE: Final = 64
INTERRUPTED: Final = 130
"""What a shell reports for a program ended by Ctrl-C."""

BY_OUTCOME: Final = {
    "pass": PASS,
    "fail": FAIL,
    "inconclusive": INCONCLUSIVE,
    "harness": HARNESS,
    "crash": CRASH,
}
SEVERITY: Final = ("pass", "inconclusive", "harness", "crash", "fail")
"""Of several runs the worst names the exit code: a broken protocol must not hide behind a lost host."""


def of(outcomes: Iterable[str]) -> int:
    """Give the exit code of several runs; none at all is a harness failure, since nothing was looked at."""
    worst = max(outcomes, key=SEVERITY.index, default="harness")
    return BY_OUTCOME[worst]
