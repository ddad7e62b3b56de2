"""A writer of initramfs archives (cpio "newc") that gives the same bytes for the same content.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Entries are sorted,
owned by root and dated 0; several archives may follow one another in one initramfs.
"""

import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_ALIGN = 4
_BLOCK = 512


class Archive:
    """The content of one initramfs segment, by path from its root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and the ones above it; `mode` is for itself only."""
        name = path.strip("/")
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))
        self._entries[name] = (stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file and the directories above it."""
        self._add(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link and the directories above it."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def tree(self, source: Path) -> None:
        """Add all files below `source`; a file that its owner may execute becomes 0755, others 0644."""
        for path in sorted(source.rglob("*")):
            if path.is_file():
                mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
                self.file(str(path.relative_to(source)), path.read_bytes(), mode)

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._entries

    def write(self, out: BinaryIO) -> None:
        """Write the segment, its end mark and the padding that lets another one follow."""
        written = 0
        for inode, (name, (mode, data)) in enumerate(sorted(self._entries.items()), start=1):
            written += _entry(out, inode, name, mode, data)
        written += _entry(out, 0, "TRAILER!!!", 0, b"")
        out.write(bytes(-written % _BLOCK))

    def _add(self, path: str, mode: int, data: bytes) -> None:
        name = path.strip("/")
        parent = str(PurePosixPath(name).parent)
        if parent not in (".", *self._entries):
            self.directory(parent)
        self._entries[name] = (mode, data)


def _entry(out: BinaryIO, inode: int, name: str, mode: int, data: bytes) -> int:
    links = 2 if stat.S_ISDIR(mode) else 1
    encoded = name.encode() + b"\0"
    # Field order: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check.
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    head += bytes(-len(head) % _ALIGN)
    body_padding = bytes(-len(data) % _ALIGN)
    out.write(head)
    out.write(data)
    out.write(body_padding)
    return len(head) + len(data) + len(body_padding)
