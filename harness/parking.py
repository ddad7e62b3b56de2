"""What is put into a ready machine before it is parked: agents, probes, and a guest that waits.

All of it shapes the saved state, so all of it goes into the state's key.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from blkproof.harness.errors import SessionError
from blkproof.harness.machine import Machine
from blkproof.harness.pool import Preparation
from blkproof.harness.probes.compiler import Definition
from blkproof.harness.probes.errors import ProbeError
from blkproof.traces.events import EVENTS

GUEST: Final = "guest1"
GUEST_ADDRESS: Final = "169.254.77.2"
AGENT: Final = "/lib/blkproof/agent"

_SCRIPTS: Final = Path(__file__).parent / "agent"
_SIDES: Final = {"dom0": "backend", "guest": "frontend"}
"""Who records on which side of the ring."""
_BUFFER_KB: Final = 16384
"""Trace buffer of a processor: several times what a scenario fills, so that nothing is lost."""
_BUFFERS_KB: Final = {"dom0": 262144, "guest": 98304}
"""Trace buffers of all processors of a domain: what its memory has room for."""
_GUEST_BOOT_S: Final = 20.0
_PARK_S: Final = 60.0
_REFUSED: Final = 2
"""Exit status of park.sh when a kernel refused a probe."""
_REFUSAL = re.compile(r"error: (?P<why>[^\n]+)\n *Command: (?P<command>[^\n]+)\n(?P<caret> *\^)")


def preparation(definitions: Sequence[Definition], guest_vcpus: int = 1) -> Preparation:
    """Return how a ready machine is parked with these probes and a guest of so many processors."""
    files = agent_files(definitions)
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name} {len(data)} ".encode() + data)
    digest.update(repr((GUEST, GUEST_ADDRESS, _BUFFER_KB, _BUFFERS_KB, guest_vcpus)).encode())
    return Preparation(digest.hexdigest(), lambda machine: _park(machine, files, definitions, guest_vcpus))


def buffer_kb(who: str, vcpus: int) -> int:
    """Return how large the trace buffer of each of a domain's processors may be, in KB."""
    return min(_BUFFER_KB, _BUFFERS_KB[who] // vcpus)


def agent_files(definitions: Sequence[Definition]) -> dict[str, bytes]:
    """Return the agents' files by name: scripts, and probes, filters and sleepers of both sides."""
    files = {path.name: path.read_bytes() for path in sorted(_SCRIPTS.glob("*.sh"))}
    for who, side in _SIDES.items():
        own = [row for row in definitions if EVENTS[row.event].origin in (side, "either")]
        files[f"{who}.probes"] = "".join(f"{row.line}\n" for row in own).encode()
        filters = dict.fromkeys(f"{row.event} {row.when}\n" for row in own if row.when)
        files[f"{who}.filters"] = "".join(filters).encode()
        wakers = dict.fromkeys(row.wake for row in own if _all_wake(row, {row.event for row in own}))
        files[f"{who}.asleep"] = "".join(wakers).encode()
    return files


def _all_wake(row: Definition, armed: Collection[str]) -> bool:
    """Tell whether all that is to wake a probe is armed: one that could sleep too long stays awake."""
    return all(line.split()[0] in armed for line in row.wake.splitlines())


def refusal(error_log: str, definitions: Sequence[Definition]) -> str | None:
    """Return what a kernel's error_log says against a probe, and the row that it comes from; None if nothing.

    The log quotes the command and puts a caret below the argument that it could not take.
    """
    match = _REFUSAL.search(error_log)
    if match is None:
        return None
    command = match["command"]
    at = len(match["caret"]) - 1 - len("  Command: ")
    start = command.rfind(" ", 0, max(at, 0) + 1) + 1
    argument = command[start:].split(" ", 1)[0]
    event = command.split(" ", 1)[0].rpartition("/")[2]
    row = next((row for row in definitions if row.line == command), None)
    written = f" ({row.written(argument)})" if row else ""
    return f"probe {event}: the kernel refused {argument!r}{written}: {match['why']}"


def _park(
    machine: Machine, files: Mapping[str, bytes], definitions: Sequence[Definition], guest_vcpus: int
) -> None:
    machine.supervisor.phase("park")
    machine.ssh.check_run(f"mkdir -p {AGENT} && tar -x -C {AGENT}", _tar(files))
    machine.ssh.check_run(f"xl create /etc/xen/guest.cfg vcpus={guest_vcpus}", timeout_s=_PARK_S)
    machine.wait_until(
        lambda: "blkproof-guest: parked" in machine.consoles[GUEST].text(),
        _GUEST_BOOT_S,
        "boot of the guest",
        console=GUEST,
    )
    vcpus = {"dom0": machine.shape.dom0_vcpus, "guest": guest_vcpus}
    sizes = " ".join(f"{who.upper()}_BUFFER_KB={buffer_kb(who, count)}" for who, count in vcpus.items())
    result = machine.ssh.run(
        f"{sizes} sh {AGENT}/park.sh {GUEST} {GUEST_ADDRESS}",
        timeout_s=_PARK_S,
    )
    if result.rc:
        said = (result.out + result.err).decode("utf-8", "replace").strip()
        if refused := refusal(said, definitions):
            raise ProbeError(refused)
        raise SessionError(f"parking dom0 and guest: status {result.rc}: {said or 'no output'}")


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
