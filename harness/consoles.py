"""Consoles: reading them as they grow, and knowing a crash when one is printed.

A sign counts only on the console of the one who prints it, and only as a whole phrase that
nothing else prints: register names, "call trace" or a bare "RIP:" also stand in warnings.

Sources of the phrases: Xen 4.17, xen/drivers/char/console.c (panic), xen/arch/x86/traps.c,
xen/common/{domain,shutdown}.c; Linux 6.1, kernel/panic.c, arch/x86/mm/fault.c,
arch/x86/kernel/dumpstack.c, lib/bug.c.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from blkproof.harness.errors import Loss

QEMU_LOG = "qemu"  # QEMU's own messages, followed like a console
# A printk begins its line, or follows text without a line end; its time stamp tells it then.
_PRINTK = r"(?:^|\[ *\d+\.\d+\] )"
_XEN_SIGNS = re.compile(
    r"^\(XEN\) (?:"
    r"Panic on CPU \d+:"
    r"|Xen BUG at \S+:\d+"
    r"|Assertion '.+' failed at \S+:\d+"
    r"|FATAL TRAP: "
    r"|FATAL PAGE FAULT"
    r"|\*\*\* DOUBLE FAULT \*\*\*"
    r")"
)
# Xen tells of a domain's end, which matters when the domain's own console had no time to.
_DOM0_GONE = re.compile(r"^\(XEN\) Hardware Dom0 (?:crashed|halted|shutdown)")
_DOMAIN_CRASHED = re.compile(r"^\(XEN\) Domain (\d+) \(vcpu#\d+\) crashed on cpu#\d+:")
_LINUX_GONE = re.compile(rf"{_PRINTK}Kernel panic - not syncing: ")
# After these a thread is dead, and a guest is of no more use; dom0 can still be asked for its evidence.
_LINUX_OOPS = re.compile(
    rf"{_PRINTK}(?:"
    r"BUG: unable to handle "
    r"|BUG: kernel NULL pointer dereference, address: "
    r"|kernel BUG at \S+:\d+!"
    r"|\S.*: [0-9a-f]{4} \[#\d+\](?: |$)"  # the head of every report by die(): "Oops: 0002 [#1] SMP"
    r")"
)
# KVM stops the machine for good, QEMU itself lives on.
_KVM_GAVE_UP = re.compile(r"^KVM internal error\.")


@dataclass(frozen=True)
class Sign:
    """A console line that tells of a crash."""

    kind: Loss
    console: str
    line: str


def diagnose(console: str, line: str) -> Sign | None:
    """Tell what a line means on that console ("xen", "dom0", "qemu" or a guest's name), None if nothing."""
    if console == QEMU_LOG:
        return Sign(Loss.QEMU_DIED, console, line) if _KVM_GAVE_UP.match(line) else None
    kind = _told_by_xen(line) if console == "xen" else _told_by_linux(console, line)
    return None if kind is None else Sign(kind, console, line)


def _told_by_xen(line: str) -> Loss | None:
    if _XEN_SIGNS.match(line):
        return Loss.XEN_PANIC
    if _DOM0_GONE.match(line):
        return Loss.DOM0_PANIC
    if crashed := _DOMAIN_CRASHED.match(line):
        return Loss.DOM0_PANIC if crashed[1] == "0" else Loss.GUEST_PANIC
    return None


def _told_by_linux(console: str, line: str) -> Loss | None:
    if _LINUX_GONE.search(line):
        return Loss.DOM0_PANIC if console == "dom0" else Loss.GUEST_PANIC
    if _LINUX_OOPS.search(line):
        return Loss.DOM0_OOPS if console == "dom0" else Loss.GUEST_PANIC
    return None


class Console:
    """A console's file, followed while QEMU writes it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._offset = 0
        self._unfinished = b""

    def text(self) -> str:
        """Return everything printed so far."""
        try:
            return _decode(self.path.read_bytes())
        except FileNotFoundError:
            return ""

    def new_lines(self) -> list[str]:
        """Return the lines finished since the last call (one reader only: the supervisor)."""
        try:
            with self.path.open("rb") as handle:
                handle.seek(self._offset)
                data = handle.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        return [_decode(line) for line in lines]

    def size(self) -> int:
        """Return the number of bytes printed so far."""
        try:
            return os.stat(self.path).st_size  # noqa: PTH116  (called at each tick)
        except FileNotFoundError:
            return 0


def _decode(data: bytes) -> str:
    return data.replace(b"\r", b"").decode("utf-8", "replace")
