"""Saved machines: a directory with the memory, the devices, and a description to check them by.

The memory lies in a sparse file that a restored machine maps privately: nothing is loaded, pages
come from the page cache when touched, and any number of machines can start from one file. QEMU
leaves memory that it shares with a file out of its migration stream (capability x-ignore-shared),
so that the stream holds the devices only, and takes milliseconds.
"""

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from blkproof.harness.errors import SnapshotError

_SCHEMA = 1
_DESCRIPTION = "state.json"


@dataclass(frozen=True)
class Snapshot:
    """A saved machine in its directory."""

    directory: Path

    @property
    def memory(self) -> Path:
        """Return the file of the machine's memory."""
        return self.directory / "memory"

    @property
    def devices(self) -> Path:
        """Return the file of QEMU's device state."""
        return self.directory / "devices"

    def write(self, memory_fd: int, devices: bytes) -> None:
        """Copy the memory behind `memory_fd`, holes left out, and the device state into the directory.

        The directory is made complete before it gets its final name by whoever calls this.
        """
        self.devices.write_bytes(devices)
        with self.memory.open("wb") as copy:
            copy_sparse(memory_fd, copy.fileno())
            os.fsync(copy.fileno())
        description = {"schema": _SCHEMA, "devices": _sha256(devices), **self._measure()}
        (self.directory / _DESCRIPTION).write_text(json.dumps(description))

    def check(self) -> None:
        """Raise SnapshotError unless the files are what was written, without reading the memory.

        The memory is known by its size and time of change: reading 300 MB would take
        longer than the restore.
        """
        try:
            wanted = json.loads((self.directory / _DESCRIPTION).read_text())
            found = {"schema": _SCHEMA, "devices": _sha256(self.devices.read_bytes()), **self._measure()}
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{self.directory}: the saved machine can't be read: {error}") from error
        if wanted != found:
            odd = sorted(
                key for key in found if not isinstance(wanted, dict) or wanted.get(key) != found[key]
            )
            raise SnapshotError(
                f"{self.directory}: the saved machine was altered or cut off ({', '.join(odd)})"
            )

    def _measure(self) -> dict[str, int]:
        status = self.memory.stat()
        return {"size": status.st_size, "changed_ns": status.st_mtime_ns}


def copy_sparse(source: int, target: int) -> int:
    """Copy file descriptor `source` into the empty file `target`, keeping holes; return bytes copied."""
    size, copied, position = os.fstat(source).st_size, 0, 0
    os.ftruncate(target, size)
    while position < size:
        try:
            begin = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                break
            raise
        end = os.lseek(source, begin, os.SEEK_HOLE)
        copied += _copy_range(source, target, begin, end)
        position = end
    return copied


def read_to_end(fd: int) -> bytes:
    """Return everything that comes out of a pipe, and close it."""
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read()


def write_all(fd: int, data: bytes) -> None:
    """Write everything into a pipe, and close it; a reader that goes early is its own error to tell."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb") as pipe:
        pipe.write(data)


def _copy_range(source: int, target: int, begin: int, end: int) -> int:
    os.lseek(target, begin, os.SEEK_SET)
    position = begin
    while position < end:
        sent = os.sendfile(target, source, position, end - position)
        if sent == 0:
            break  # the source shrank under us; its size shows it
        position += sent
    return position - begin


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
