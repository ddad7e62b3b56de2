"""What is gathered from a machine at the end of a run: dom0's tar, the guest's in it, and the consoles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from blkproof.harness.errors import SessionError
from blkproof.harness.machine import Machine
from blkproof.harness.parking import GUEST
from blkproof.harness.unpacking import END_OF_BULK, unpack

_GRANT_DUMP: Final = re.compile(
    r"^[^\n]*gnttab_usage_print_all \[.*?(?:gnttab_usage_print_all \] done[^\n]*\n?|\Z)",
    re.DOTALL | re.MULTILINE,
)
_REFUSED: Final = re.compile(r"Failed to re-register probe \S+ on \S+[^\n]*")


def gather(machine: Machine, work: Path, grant_dumps: Sequence[str]) -> list[str]:
    """Put all evidence into ``work`` as far as it goes; return what is wrong with it.

    ``grant_dumps`` are the names of the files for the lists of grants on Xen's console, in their order.
    """
    data = machine.bulk.read_bytes()
    notes = [] if data.endswith(END_OF_BULK) else [f"dom0 sent {len(data)} bytes of evidence, without an end"]
    notes += _unpack(data, work)
    of_guest = work / f"{GUEST}.tar"
    if of_guest.exists():
        notes += _unpack(of_guest.read_bytes(), work / GUEST)
        of_guest.unlink()
    machine.copy_logs(work / "consoles")
    console = work / "consoles" / "xen.log"
    for name, dump in zip(grant_dumps, _GRANT_DUMP.findall(console.read_text()), strict=False):
        (work / name).write_text(dump)
    _restore_boot_text(work / "xen-boot.txt", console)
    return notes


def refused_probes(work: Path) -> list[str]:
    """Return what dom0 and guest said on their consoles against probes in a driver just loaded."""
    return [
        found
        for domain in ("dom0", GUEST)
        if (console := work / "consoles" / f"{domain}.log").exists()
        for found in _REFUSED.findall(console.read_text())
    ]


def _unpack(data: bytes, target: Path) -> list[str]:
    try:
        unpack(data, target)
    except SessionError as error:
        return [str(error)]
    return []


def _restore_boot_text(boot: Path, console: Path) -> None:
    """Put what Xen printed at its boot, before the machine was saved, in front of its console."""
    if boot.exists():
        console.write_bytes(boot.read_bytes() + console.read_bytes())
        boot.unlink()
