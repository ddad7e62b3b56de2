"""Xenstore over time: what the drivers wrote to it, on top of what it held before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from blkproof.analysis.entities import Device
from blkproof.analysis.facts import BACKEND
from blkproof.traces.events import Event


@dataclass(frozen=True, slots=True)
class Write:
    """One value written by a kernel; ``event`` is None for a value that was there before the recording."""

    value: str
    event: Event | None


class Store:
    """Values by full path and time, from the listing before the run and the recorded writes."""

    def __init__(self, before: Mapping[str, str], domids: Mapping[str, int]) -> None:
        self._writes: dict[str, list[Write]] = {path: [Write(value, None)] for path, value in before.items()}
        self._domids = {BACKEND: 0, **domids}

    def write(self, event: Event) -> None:
        """Take over one ``xs_write``; a driver names its own directory relative to its domain's."""
        directory = event.dir
        if not directory.startswith("/"):
            domid = self._domids.get(event.source)
            if domid is None:
                return
            directory = f"/local/domain/{domid}/{directory}"
        self._writes.setdefault(f"{directory}/{event.node}", []).append(Write(event.value, event))

    def at(self, path: str, tsc: int) -> Write | None:
        """Return what ``path`` held at ``tsc`` (ticks), or None when nothing was ever written."""
        found = None
        for write in self._writes.get(path, ()):
            if write.event is not None and write.event.tsc > tsc:
                break
            found = write
        return found

    def before(self, path: str) -> str | None:
        """Return what ``path`` held when the recording began, or None."""
        write = next(iter(self._writes.get(path, ())), None)
        return write.value if write is not None and write.event is None else None

    def number(self, path: str, tsc: int) -> int | None:
        """Return the number that ``path`` held at ``tsc``, or None when it is no number."""
        write = self.at(path, tsc)
        if write is None or not write.value.isascii() or not write.value.isdecimal():
            return None
        return int(write.value[:20])

    def writes(self, path: str) -> Iterator[Event]:
        """Yield the recorded writes of ``path`` in their order."""
        return (write.event for write in self._writes.get(path, ()) if write.event is not None)

    def below(self, directory: str) -> Iterator[tuple[str, Event]]:
        """Yield the recorded writes below ``directory``, which ends with a slash, with their path in it."""
        for path, writes in self._writes.items():
            if path.startswith(directory):
                for write in writes:
                    if write.event is not None:
                        yield path.removeprefix(directory), write.event

    def ring_pages(self, device: Device) -> list[Event]:
        """Return the recorded writes of the grants of a device's ring pages, of all its queues."""
        prefix = f"/local/domain/{device.domid}/device/vbd/{device.vdev}/"
        return [
            write.event
            for path, writes in self._writes.items()
            if path.startswith(prefix) and path.rsplit("/", 1)[1].startswith("ring-ref")
            for write in writes
            if write.event is not None
        ]

    @property
    def devices(self) -> list[Device]:
        """Devices whose drivers wrote to either directory, in numerical order."""
        found = set()
        for path, writes in self._writes.items():
            parts = path.split("/")
            if not any(write.event for write in writes):
                continue
            match parts[3:]:
                case ["0", "backend", "vbd", domid, vdev, *_] | [domid, "device", "vbd", vdev, *_]:
                    if domid.isdecimal() and vdev.isdecimal():
                        found.add(Device(int(domid), int(vdev)))
        return sorted(found)


def back(device: Device, key: str) -> str:
    """Return the path of a key in the backend's directory."""
    return f"/local/domain/0/backend/vbd/{device.domid}/{device.vdev}/{key}"


def front(device: Device, key: str) -> str:
    """Return the path of a key in the frontend's directory."""
    return f"/local/domain/{device.domid}/device/vbd/{device.vdev}/{key}"
