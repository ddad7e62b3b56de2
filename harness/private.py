"""Private directories: where one machine keeps its consoles, and which are swept when forgotten.

Each directory holds a file `lock`, locked for as long as the harness or the warden lives. A
directory whose lock can be had belongs to nobody: whoever starts the next machine removes it.
"""

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

PREFIX = "blkproof-machine-"
LOCK = "lock"


@dataclass(frozen=True)
class PrivateDirectory:
    """A directory of mode 0700 and the descriptor of its lock."""

    path: Path
    lock_fd: int

    @classmethod
    def create(cls) -> "PrivateDirectory":
        """Sweep what was forgotten, then make a new locked directory."""
        sweep()
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        unfinished = path / f"{LOCK}.new"
        lock_fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        unfinished.rename(path / LOCK)  # a lock that can be seen is held: no sweep can come between
        return cls(path, lock_fd)

    def remove(self) -> None:
        """Remove the directory if the warden has not, and let the lock go."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock_fd)


def sweep() -> list[Path]:
    """Remove the directories whose harness and warden are both gone; return them."""
    swept = []
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        try:
            with lock.open("r+") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
                swept.append(lock.parent)
        except OSError:
            continue  # alive, another user's, or just swept by somebody else
    return swept
