"""A user's own source of a driver: a whole kernel tree, or the directory that holds the driver."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blkproof.images.errors import DriverError

_PLACES = {
    "xen_blkback": ("drivers/block/xen-blkback", "xen-blkback", "."),
    "xen_blkfront": ("drivers/block", "."),
}
"""Where a driver's files may be below the directory that a user gives, the likeliest first."""
_MAIN = {"xen_blkback": "blkback.c", "xen_blkfront": "xen-blkfront.c"}
_FILES = {"xen_blkback": ("*.[ch]", "Makefile", "Kbuild"), "xen_blkfront": ("xen-blkfront*.[ch]",)}


@dataclass(frozen=True)
class Source:
    """The source of one driver as it was when it was read.

    `digest` is the sha256 over its files' names and contents. `head` is git's HEAD where the files are in
    a repository, else "", and `dirty` tells whether one of them differs from it.
    """

    driver: str
    directory: Path
    files: tuple[tuple[str, bytes], ...]
    digest: str
    head: str
    dirty: bool

    def __str__(self) -> str:
        """Return the source's name for a user."""
        state = f", git {self.head[:12]}{' with changes' if self.dirty else ''}" if self.head else ""
        return f"{self.directory}{state}"

    def described(self) -> dict[str, Any]:
        """Return what a capture's manifest says about it, which names no path of this host."""
        return {
            "directory": self.directory.resolve().name,
            "sha256": self.digest,
            "git": self.head or None,
            "dirty": self.dirty if self.head else None,
        }

    def put(self, block: Path) -> None:
        """Put the files in the place of those that a copy of the kernel's drivers/block has."""
        target = block
        if self.driver == "xen_blkback":
            target = block / "xen-blkback"
            shutil.rmtree(target)
            target.mkdir()
        for name, data in self.files:
            (target / name).write_bytes(data)


def read_source(driver: str, directory: Path) -> Source:
    """Return the source of a driver in a directory of the user's; DriverError if it is not there."""
    place = next(
        (directory / below for below in _PLACES[driver] if (directory / below / _MAIN[driver]).is_file()),
        None,
    )
    if place is None:
        wanted = ", ".join(str(Path(below) / _MAIN[driver]) for below in _PLACES[driver])
        raise DriverError(f"{directory}: no source of {driver.replace('_', '-')} there: looked for {wanted}")
    try:
        paths = sorted({path for pattern in _FILES[driver] for path in place.glob(pattern) if path.is_file()})
        files = tuple((path.name, path.read_bytes()) for path in paths if not path.name.endswith(".mod.c"))
    except OSError as error:
        raise DriverError(f"{error.filename}: cannot be read: {error.strerror}") from error
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name} {len(data)} ".encode() + data)
    head = _git(place, "rev-parse", "HEAD")
    dirty = bool(head and _git(place, "status", "--porcelain", "--", *(name for name, _ in files)))
    return Source(driver, directory, files, digest.hexdigest(), head, dirty)


def _git(place: Path, *words: str) -> str:
    """Return what git says about a directory, "" where there is no git or it knows nothing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(place), "-c", "core.fsmonitor=false", *words],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
