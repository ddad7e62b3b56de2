"""One machine: a QEMU with Xen in it, from its start to the last trace of it."""

import contextlib
import enum
import functools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from blkproof.harness import shape as options
from blkproof.harness.consoles import QEMU_LOG, Console
from blkproof.harness.errors import HarnessError, MachineLost, QemuError, WrongStateError, tail
from blkproof.harness.host import Accelerator, check_memory
from blkproof.harness.private import PrivateDirectory
from blkproof.harness.process import QemuProcess
from blkproof.harness.qmp import Qmp
from blkproof.harness.shape import Shape
from blkproof.harness.snapshot import Snapshot, copy_sparse, read_to_end, write_all
from blkproof.harness.ssh import Ssh
from blkproof.harness.supervisor import Supervisor
from blkproof.harness.waiting import wait_until
from blkproof.images.build import Image

T = TypeVar("T")
P = ParamSpec("P")

READY_LINE = "blkproof-dom0: ready"
# Limits that suit KVM; each is stretched by the accelerator's slowness.
QMP_LIMIT_S = 10.0
BOOT_LIMIT_S = 30.0
MIGRATE_LIMIT_S = 10.0
_UNLIMITED = 1 << 50  # bytes per second; QEMU's default would slow a save down
_FORWARD = "TCP[HOST_FORWARD]"


class State(enum.Enum):
    """The life of a machine."""

    NEW = "new"  # nothing runs yet
    BOOTING = "booting"  # QEMU runs, dom0 is not ready
    RUNNING = "running"  # dom0 answers
    PAUSED = "paused"  # processors stopped, for a save
    CLOSED = "closed"  # nothing is left of it


def require(
    *allowed: State,
) -> Callable[[Callable[Concatenate["Machine", P], T]], Callable[Concatenate["Machine", P], T]]:
    """Let a method run in these states only; a machine that is lost raises MachineLost instead."""

    def decorate(method: Callable[Concatenate["Machine", P], T]) -> Callable[Concatenate["Machine", P], T]:
        @functools.wraps(method)
        def checked(self: "Machine", /, *args: P.args, **kwargs: P.kwargs) -> T:
            if self.state not in allowed:
                names = " or ".join(state.value for state in allowed)
                raise WrongStateError(
                    f"{method.__name__}: needs a {names} machine, this one is {self.state.value}"
                )
            self.supervisor.check()
            return method(self, *args, **kwargs)

        return checked

    return decorate


class Machine:
    """A QEMU with Xen, dom0 and guests in memory only; use it as a context manager.

    `rescue` is a directory that gets the evidence if the machine is lost, and the consoles if anything
    else fails.
    """

    def __init__(
        self, image: Image, accelerator: Accelerator, shape: Shape | None = None, rescue: Path | None = None
    ) -> None:
        check_memory()
        self.image = image
        self.accelerator = accelerator
        self.shape = shape or Shape()
        self.rescue = rescue
        self.qmp = Qmp()
        self._process = QemuProcess(PrivateDirectory.create())
        self.directory = self._process.directory.path
        self.bulk = self.directory / "bulk"  # all that dom0 ever wrote to its port of that name
        names = (*self.shape.consoles, QEMU_LOG)
        self.consoles = {name: Console(name, self.directory / f"{name}.log") for name in names}
        self.supervisor = Supervisor(
            self.consoles, self._process.end, self._save_evidence, self._process.kill
        )
        self.states = [State.NEW]
        self._memory_fd: int | None = None
        self._ssh: Ssh | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rescue is not None and isinstance(error, HarnessError) and self.supervisor.loss is None:
            self.copy_logs(self.rescue)  # something did not come, and the consoles may tell why
        self.close()

    @property
    def state(self) -> State:
        """Return the present state, the last of `states`."""
        return self.states[-1]

    @property
    def qemu_pid(self) -> int | None:
        """Return QEMU's process id, None before the start."""
        return self._process.pid

    @require(State.NEW)
    def boot(self) -> None:
        """Start a cold boot; `wait_ready` waits for its end."""
        memory_fd = self._new_memory()
        self._launch(
            options.memory(self.shape, f"/proc/self/fd/{memory_fd}", shared=True)
            + options.boot(self.shape, self.image),
            [memory_fd],
        )
        self._enter(State.BOOTING, "boot")

    @require(State.BOOTING)
    def wait_ready(self) -> None:
        """Wait until dom0's toolstack and SSH server are up."""
        dom0 = self.consoles["dom0"]
        self.wait_until(lambda: READY_LINE in dom0.text(), BOOT_LIMIT_S, "boot of dom0", console="dom0")
        self._enter(State.RUNNING, "work")

    @require(State.NEW)
    def restore(self, snapshot: Snapshot, *, to_save_again: bool = False) -> None:
        """Start from a saved machine.

        Its memory file is mapped privately and never written. `to_save_again` copies it first
        (about 0.2 s), which makes `save` possible.
        """
        snapshot.check()
        if to_save_again:
            inherit = [self._new_memory()]
            with snapshot.memory.open("rb") as saved:
                copy_sparse(saved.fileno(), inherit[0])
            memory = options.memory(self.shape, f"/proc/self/fd/{inherit[0]}", shared=True)
        else:
            inherit = []
            memory = options.memory(self.shape, snapshot.memory, shared=False)
        self._launch([*memory, "-S", "-incoming", "defer"], inherit)
        self._enter(State.PAUSED, "restore")
        self._load_devices(snapshot)
        self.qmp.execute("cont")
        self._enter(State.RUNNING, "work")

    @require(State.RUNNING)
    def save(self, directory: Path) -> Snapshot:
        """Save the machine into an existing directory; it runs on afterwards.

        Connections to dom0 are closed first: they would not survive in the saved machine.
        """
        if self._memory_fd is None:
            raise WrongStateError("save: this machine runs on a private copy of a saved one's memory")
        self._hang_up()
        self.qmp.execute("stop")
        self._enter(State.PAUSED, "save")
        snapshot = Snapshot(directory)
        snapshot.write(self._memory_fd, self._save_devices())
        self.qmp.execute("cont")
        self._enter(State.RUNNING, "work")
        return snapshot

    @property
    def ssh(self) -> Ssh:
        """Return the connection to dom0, opened by its first command."""
        if self._ssh is None:
            if self.state is not State.RUNNING:
                raise WrongStateError(f"ssh: needs a running machine, this one is {self.state.value}")
            self._ssh = Ssh(
                self._ssh_port(),
                self.image.ssh_key,
                self.image.host_key,
                slowness=self.accelerator.slowness,
                check=self.supervisor.check,
            )
        return self._ssh

    def wait_until(
        self, predicate: Callable[[], T | None], timeout_s: float, what: str, *, console: str
    ) -> T:
        """Wait as `waiting.wait_until` does, the limit stretched for this accelerator.

        MachineLost if the machine goes first; the error quotes the named console.
        """
        return wait_until(
            predicate,
            timeout_s * self.accelerator.slowness,
            what,
            check=self.supervisor.check,
            tail=lambda: tail(self.consoles[console].text()),
        )

    def copy_logs(self, target: Path) -> None:
        """Copy all consoles and QEMU's own log into a directory, made if missing."""
        target.mkdir(parents=True, exist_ok=True)
        for name, console in self.consoles.items():
            (target / f"{name}.log").write_text(console.text())

    def close(self) -> None:
        """End QEMU and leave nothing behind; harmless when done twice."""
        if self.state is State.CLOSED:
            return
        self.supervisor.stop()
        if self._ssh is not None:
            self._ssh.close()
        self._process.close()
        self.qmp.close()
        if self._memory_fd is not None:
            os.close(self._memory_fd)
        self.states.append(State.CLOSED)

    def _enter(self, state: State, phase: str) -> None:
        self.states.append(state)
        self.supervisor.phase(phase)

    def _new_memory(self) -> int:
        self._memory_fd = os.memfd_create("blkproof-memory", os.MFD_CLOEXEC)
        os.ftruncate(self._memory_fd, self.shape.memory_mb << 20)
        return self._memory_fd

    def _launch(self, more: list[str], inherit: list[int]) -> None:
        qmp_fd = self.qmp.qemu_fd
        command = [
            options.QEMU,
            *options.hardware(self.shape, self.accelerator),
            *options.devices(self.shape, self.directory),
            *options.control(qmp_fd),
            *more,
        ]
        self._process.start(command, [qmp_fd, *inherit])
        try:
            self.qmp.connect(QMP_LIMIT_S * self.accelerator.slowness)
        except QemuError as error:
            how = self._process.end(wait_s=QMP_LIMIT_S) or "it still runs"
            raise QemuError(f"{error} ({how})", self.consoles[QEMU_LOG].text()) from error
        self.supervisor.start()

    def _save_devices(self) -> bytes:
        self._prepare_migration()
        receive_fd, send_fd = os.pipe()
        parts: list[bytes] = []
        reader = threading.Thread(target=lambda: parts.append(read_to_end(receive_fd)))
        reader.start()
        try:
            self.qmp.send_fd("state", send_fd)
        finally:
            os.close(send_fd)  # QEMU has its own copy, and the pipe ends when QEMU closes it
        self.qmp.execute("migrate", uri="fd:state")
        self._wait_migrated()
        reader.join()
        return parts[0]

    def _load_devices(self, snapshot: Snapshot) -> None:
        self._prepare_migration()
        receive_fd, send_fd = os.pipe()
        devices = snapshot.devices.read_bytes()
        writer = threading.Thread(target=write_all, args=(send_fd, devices))
        writer.start()
        try:
            self.qmp.send_fd("state", receive_fd)
        finally:
            os.close(receive_fd)
        self.qmp.execute("migrate-incoming", uri="fd:state")
        self._wait_migrated()
        writer.join()

    def _prepare_migration(self) -> None:
        ignore_shared = {"capability": "x-ignore-shared", "state": True}
        self.qmp.execute("migrate-set-capabilities", capabilities=[ignore_shared])
        self.qmp.execute("migrate-set-parameters", max_bandwidth=_UNLIMITED)

    def _wait_migrated(self) -> None:
        def migrated() -> bool:
            status = self.qmp.execute("query-migrate").get("status")
            if status == "failed":
                raise QemuError("QEMU could not save or load the devices", self.consoles[QEMU_LOG].text())
            return bool(status == "completed")

        self.wait_until(migrated, MIGRATE_LIMIT_S, "save or restore of the devices", console="dom0")

    def _hang_up(self) -> None:
        """Close the connection and wait until dom0 has heard of it."""
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None
            self.wait_until(
                lambda: "TCP[ESTABLISHED]" not in self.qmp.human("info usernet"),
                QMP_LIMIT_S,
                "end of the SSH connection",
                console="dom0",
            )

    def _ssh_port(self) -> int:
        """Ask QEMU which free port the kernel gave it."""
        for line in self.qmp.human("info usernet").splitlines():
            if _FORWARD in line:
                return int(line.split()[3])
        raise QemuError("QEMU forwards no port to dom0's SSH server")

    def _save_evidence(self, loss: MachineLost) -> None:
        """Write what can still be learnt into the rescue directory."""
        if self.rescue is None:
            return
        self.copy_logs(self.rescue)
        facts: dict[str, object] = {"kind": loss.kind.value, "phase": loss.phase, "sign": loss.sign}
        with contextlib.suppress(HarnessError):  # QEMU may be what died
            facts["status"] = self.qmp.execute("query-status")
            (self.rescue / "registers.txt").write_text(self.qmp.human("info registers -a"))
        (self.rescue / "loss.json").write_text(json.dumps(facts, indent=1))
