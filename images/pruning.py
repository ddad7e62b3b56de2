"""What the cache may forget: images, package trees and drivers that were not used for the longest time.

A change of this room's code or of a lock makes new ones, and the old ones would stay.
"""

import fcntl
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from blkproof.images.cache import Progress, cache_root, use_lock

KEPT: Final = {"images": 3, "trees": 1, "drivers": 24}
"""How many of each stay besides those that are needed: the last that were used."""
_DOOMED: Final = ".doomed-"


def spare(needed: Collection[Path]) -> list[Path]:
    """Return what may go: neither needed nor among the last that were used."""
    found = []
    for kind, kept in KEPT.items():
        there = [path for path in (cache_root() / kind).glob("[!.]*") if not path.is_symlink()]
        others = [path for path in there if path not in needed]
        found += sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]
    return found


def prune(needed: Collection[Path], progress: Progress) -> int:
    """Remove what may go, but for what another process uses now; return the bytes that are free again."""
    for left_behind in cache_root().glob(f"*/{_DOOMED}*"):  # by a pruning that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    sizes = [size for path in spare(needed) if (size := _remove(path))]
    if sizes:
        progress(f"removed {len(sizes)} old images, package trees and drivers: {sum(sizes) >> 20} MB")
    return sum(sizes)


def size_of(directory: Path) -> int:
    """Return the bytes of disk that a directory takes."""
    folders = (Path(folder) / name for folder, _, names in os.walk(directory) for name in names)
    return sum(path.lstat().st_blocks * 512 for path in folders)


def _remove(directory: Path) -> int:
    """Remove a directory unless it is used, so that nobody finds half of it; return its size."""
    size = size_of(directory)
    with use_lock(directory).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        doomed = directory.with_name(f"{_DOOMED}{os.getpid()}-{directory.name}")
        try:
            directory.rename(doomed)
        except FileNotFoundError:  # somebody else was faster
            return 0
    shutil.rmtree(doomed, ignore_errors=True)
    return size
