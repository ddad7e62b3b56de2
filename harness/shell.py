"""A shell in dom0 or in the guest of a running scenario, while the load waits for the user to leave."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from blkproof.harness.parking import GUEST_ADDRESS

if TYPE_CHECKING:
    import paramiko
    from blkproof.harness.machine import Machine
    from blkproof.harness.scenario import Scenario

Where = Literal["dom0", "guest1"]

LONGEST_S: Final = 600
"""How long the load may wait, in seconds on KVM; stretched for a slower accelerator."""

_EVENTS: Final = "data/blkproof"
_LEAVE: Final = f"{_EVENTS}/leave"
_HOLD: Final = f"sh -c 'until xenstore-read {_LEAVE} > /dev/null 2>&1; do usleep 200000; done'"
_CHUNK: Final = 1 << 14
_COMMANDS: Final = {"dom0": "exec sh", "guest1": f"nc {GUEST_ADDRESS} 4000"}
_ASK_FOR_PROMPT: Final = b"exec sh -i 2>&1\n"
"""The guest's line runs a script; for a person, that script asks for an interactive shell."""


def held(scenario: Scenario) -> Scenario:
    """Return the scenario with a load that begins when the user leaves."""
    return scenario.model_copy(update={"fio": {**scenario.fio, "exec_prerun": _HOLD}, "stall_s": LONGEST_S})


def visit(machine: Machine, domid: int, where: Where) -> None:
    """Connect this terminal, or standard input if it is none, to a shell; then let the load begin."""
    events = f"/local/domain/{domid}/{_EVENTS}"
    # The guest says so when the disk has come.
    machine.ssh.check_run(f"until xenstore-read {events}/load > /dev/null 2>&1; do usleep 100000; done")
    person = sys.stdin.isatty()
    raw = person and where == "dom0"
    try:
        with machine.ssh.opened(_COMMANDS[where], shutil.get_terminal_size() if raw else None) as channel:
            if person and where == "guest1":
                channel.sendall(_ASK_FOR_PROMPT)
            with _raw_terminal() if raw else contextlib.nullcontext():
                _join(channel)
    finally:
        machine.ssh.check_run(f"xenstore-write {events}/leave 1")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand every key to the other side until the shell ends."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _join(channel: paramiko.Channel) -> None:
    """Copy both ways until the shell ends."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    sources = [channel, keyboard]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if channel in ready:
            data = channel.recv(_CHUNK)
            if not data:
                return
            os.write(screen, data)
        if keyboard in ready:
            typed = os.read(keyboard, _CHUNK)
            if typed:
                channel.sendall(typed)
            else:
                sources.remove(keyboard)
                channel.shutdown_write()
