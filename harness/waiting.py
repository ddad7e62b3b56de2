"""The one way to wait for something."""

import time
from collections.abc import Callable
from typing import TypeVar

from blkproof.harness.errors import WaitError

T = TypeVar("T")
POLL_S = 0.01


def wait_until(
    predicate: Callable[[], T | None],
    timeout_s: float,
    what: str,
    *,
    check: Callable[[], None] = lambda: None,
    tail: Callable[[], str] = lambda: "",
) -> T:
    """Return the predicate's first true value; raise WaitError when it stays false for `timeout_s`.

    `check` runs between polls and may raise, for instance when the machine is lost; `tail` gives
    the console's last lines for the error. The predicate is asked once more after the time is up,
    so that a host that stood still does not turn a success into a failure.
    """
    begin = time.monotonic()
    while True:
        waited_s = time.monotonic() - begin
        if found := predicate():
            return found
        check()
        if waited_s >= timeout_s:
            raise WaitError(what, waited_s, tail())
        time.sleep(POLL_S)
