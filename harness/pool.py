"""The pool: machines boot once, and from then on start from what was saved.

Two stages are kept. "ready": dom0 is up. "parked": a preparation was run on that, as a rule
files put into dom0 and a guest started that waits for its disk. A state's name is a digest of
everything that shaped it, so a state that can be found is one that fits.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blkproof.harness.errors import QemuError, SnapshotError
from blkproof.harness.host import Accelerator, check_disk, processor_model, qemu_version
from blkproof.harness.machine import Machine
from blkproof.harness.shape import QEMU, Shape, fingerprint
from blkproof.harness.snapshot import Snapshot
from blkproof.images.build import Image
from blkproof.images.cache import cache_root, once

_SCHEMA = 1
# A saved machine takes about 500 MB; the least recently used go first.
KEEP = {"ready": 2, "parked": 4}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Preparation:
    """What is done to a ready machine before it is saved as parked.

    `key` is a digest of all that `run` puts into the machine: another key, another saved state.
    """

    key: str
    run: Callable[[Machine], None]


class Pool:
    """Gives out running machines of one image, accelerator and shape."""

    def __init__(
        self, image: Image, accelerator: Accelerator, *, progress: Progress, shape: Shape | None = None
    ) -> None:
        self.image = image
        self.accelerator = accelerator
        self.shape = shape or Shape()
        self._progress = progress
        self._directory = cache_root() / "states"
        self._ready_key = _digest(
            _SCHEMA,
            image.digest,
            image.host_key.read_text(),  # keys are made per build: the same inputs may be built twice
            qemu_version(QEMU),
            processor_model(),
            *fingerprint(self.shape, accelerator),
        )

    @contextmanager
    def ready(self, rescue: Path | None = None) -> Iterator[Machine]:
        """Give a machine whose dom0 is ready, in a private copy of the saved one.

        `rescue` is the directory for the evidence if the machine is lost.
        """
        with self._start(lambda: self._ready_state(rescue), rescue) as machine:
            yield machine

    @contextmanager
    def parked(self, preparation: Preparation, rescue: Path | None = None) -> Iterator[Machine]:
        """Give a machine on which the preparation was run, in a private copy of the saved one.

        If the preparation fails, nothing is kept and its error comes through.
        """
        with self._start(lambda: self._parked_state(preparation, rescue), rescue) as machine:
            yield machine

    def _start(
        self, find: Callable[[], Snapshot], rescue: Path | None, *, to_save_again: bool = False
    ) -> Machine:
        """Start a machine from a saved one; a bad one is thrown away and made anew, once."""
        snapshot = find()
        try:
            return self._restore(snapshot, rescue, to_save_again=to_save_again)
        except (SnapshotError, QemuError) as error:
            self._progress(f"{error}; throwing it away and making it anew")
            _discard(snapshot.directory)
        return self._restore(find(), rescue, to_save_again=to_save_again)

    def _restore(self, snapshot: Snapshot, rescue: Path | None, *, to_save_again: bool = False) -> Machine:
        machine = Machine(self.image, self.accelerator, self.shape, rescue)
        try:
            machine.restore(snapshot, to_save_again=to_save_again)
        except BaseException:
            machine.close()
            raise
        os.utime(snapshot.directory)  # for the pruning: this one is in use
        return machine

    def _ready_state(self, rescue: Path | None) -> Snapshot:
        def make(work: Path) -> None:
            self._progress(f"booting {self.image.name} under {self.accelerator.name} (once)")
            with Machine(self.image, self.accelerator, self.shape, rescue) as machine:
                machine.boot()
                machine.wait_ready()
                machine.save(work)

        return self._state("ready", self._ready_key, make)

    def _parked_state(self, preparation: Preparation, rescue: Path | None) -> Snapshot:
        def make(work: Path) -> None:
            machine = self._start(lambda: self._ready_state(rescue), rescue, to_save_again=True)
            self._progress("preparing dom0 and guest (once)")
            with machine:
                preparation.run(machine)
                machine.save(work)

        return self._state("parked", _digest(self._ready_key, preparation.key), make)

    def _state(self, stage: str, key: str, make: Callable[[Path], None]) -> Snapshot:
        """Return the saved machine of that stage and key, made unless it is kept."""

        def make_room_and_state(work: Path) -> None:
            prune(self._directory, stage, KEEP[stage] - 1)
            check_disk(self._directory)
            make(work)

        return Snapshot(once(self._directory / f"{stage}-{key}", self._progress, make_room_and_state))


def prune(directory: Path, stage: str, keep: int) -> None:
    """Remove the saved machines of a stage except for the `keep` that were used last.

    A machine that runs on a removed one is not disturbed: it has the file open.
    """
    states = sorted(directory.glob(f"{stage}-*"), key=lambda state: state.stat().st_mtime, reverse=True)
    for state in states[keep:]:
        _discard(state)


def _discard(directory: Path) -> None:
    """Remove a saved machine so that nobody finds half of it."""
    doomed = directory.with_name(f".doomed-{os.getpid()}-{directory.name}")
    with contextlib.suppress(FileNotFoundError):  # somebody else was faster
        directory.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
