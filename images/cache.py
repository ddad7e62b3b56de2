"""The cache on disk: content-addressed, filled by atomic renames, safe for several builders.

debs/<sha256>.deb      package files
trees/<key>/           the unpacked packages of one lock
drivers/<key>/         driver builds
images/<digest>/       bootable images
locks/                 locks made anew for a mirror that moved on; lock files of builders and users
"""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from blkproof.images.errors import SpaceError

Progress = Callable[[str], None]

_held: dict[Path, TextIO] = {}
_holding = threading.Lock()


def cache_root() -> Path:
    """Return the cache's directory: BLKPROOF_CACHE, or blkproof in the user's cache directory."""
    if own := os.environ.get("BLKPROOF_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "blkproof"


@contextmanager
def builder_lock(name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock called `name` against other builders, saying so when there is a wait."""
    path = cache_root() / "locks" / f"{name}.flock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another builder of {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def use_lock(directory: Path) -> Path:
    """Return the lock file that every process shares which uses a directory of the cache."""
    path = cache_root() / "locks" / f"{directory.parent.name}-{directory.name}.used"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _hold(directory: Path) -> None:
    """Keep a directory from being pruned until this process ends."""
    path = use_lock(directory)
    with _holding:
        if path not in _held:
            _held[path] = path.open("w")
            fcntl.flock(_held[path], fcntl.LOCK_SH)


def once(final: Path, progress: Progress, make: Callable[[Path], None]) -> Path:
    """Return directory `final`, made by `make` in a temporary place unless it is there already.

    The directory appears whole or not at all; what a killed builder left behind is swept
    by the next one that holds the lock. It is not pruned while this process lives.
    """
    _hold(final)
    if final.is_dir():
        os.utime(final)  # the pruning goes by the last use
        return final
    with builder_lock(f"{final.parent.name}-{final.name}", progress):
        if final.is_dir():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            make(work)
            work.chmod(0o755)
            work.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


def need_disk(directory: Path, size: int, purpose: str) -> None:
    """Raise SpaceError unless the file system of `directory` has `size` bytes free."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < size:
        raise SpaceError(
            f"{directory}: {purpose} needs {size >> 20} MB of disk and {free >> 20} MB are free: "
            "make room, or set BLKPROOF_CACHE to a directory that has it"
        )


def need_memory(size: int, purpose: str) -> None:
    """Raise SpaceError unless the kernel says that `size` bytes of memory can be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    if available < size:
        raise SpaceError(
            f"{purpose} needs {size >> 20} MB of memory and {available >> 20} MB are available: "
            "end other programs or use a larger machine"
        )
