"""What this host is and has: QEMU, memory, disk, and the accelerator that was found usable."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blkproof.harness.errors import HostError

MACHINE_MEMORY_MB = 2560  # one machine of 2048 MB, QEMU itself and the harness
STATES_DISK_MB = 1024  # two saved states of about 350 MB, consoles and one capture
_VERSION_LIMIT_S = 20
_MEMORY_FACTS = Path("/proc/meminfo")


@dataclass(frozen=True)
class Accelerator:
    """How QEMU runs the machine's processors.

    `why` tells in words why it was chosen; `slowness` is by what factor to stretch time limits
    that suit KVM. A `deterministic` one has a clock that counts instructions, one a nanosecond, and
    jumps over idle time; the machine then has one processor.
    """

    name: str
    why: str
    cpu_model: str
    slowness: float
    deterministic: bool = False


def available_memory_mb() -> int:
    """Return how much memory a new program could use, in MB (MemAvailable of /proc/meminfo)."""
    try:
        facts = _MEMORY_FACTS.read_text()
    except OSError as error:
        raise HostError(f"{_MEMORY_FACTS} can't be read ({error.strerror}): mount /proc") from error
    found = re.search(r"^MemAvailable:\s+(\d+) kB", facts, re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def free_disk_mb(directory: Path) -> int:
    """Return the free space, in MB, of the file system that holds `directory` (made if missing)."""
    directory.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(directory).free >> 20


def check_memory(available_mb: Callable[[], int] = available_memory_mb) -> None:
    """Raise HostError unless there is memory for a machine."""
    have = available_mb()
    if have < MACHINE_MEMORY_MB:
        raise HostError(
            f"memory: a machine needs {MACHINE_MEMORY_MB} MB and {have} MB are available: "
            "end other programs, or use a larger host"
        )


def check_disk(directory: Path, free_mb: Callable[[Path], int] = free_disk_mb) -> None:
    """Raise HostError unless there is room for saved states in `directory`."""
    have = free_mb(directory)
    if have < STATES_DISK_MB:
        raise HostError(
            f"disk: saved machines need {STATES_DISK_MB} MB in {directory} and {have} MB are free: "
            "make room there, or set BLKPROOF_CACHE to a directory that has it"
        )


def qemu_version(program: str) -> str:
    """Return QEMU's version, as "7.2.22 (Debian ...)"; HostError if it is not installed."""
    try:
        told = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=_VERSION_LIMIT_S
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{program} does not run ({error}): install the package qemu-system-x86") from error
    first = told.splitlines()[0] if told else ""
    return first.removeprefix("QEMU emulator version ").strip()


def processor_model() -> str:
    """Return the host processor's name: its time-stamp counter is what TCG machines count by."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else os.uname().machine
