"""One QEMU process under its warden."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from blkproof.harness.errors import HostError
from blkproof.harness.private import PrivateDirectory

_WARDEN = Path(__file__).parent / "warden.py"
_CANNOT_EXECUTE = 127  # as warden.py has it
_END_LIMIT_S = 20.0
# With -no-reboot QEMU exits with status 0 when Xen, or a triple fault, resets the machine.
SELF_ENDED = "the machine reset or switched itself off"


class QemuProcess:
    """A QEMU that lives no longer than this object, the harness, or its warden."""

    def __init__(self, directory: PrivateDirectory) -> None:
        self.directory = directory
        self.pid: int | None = None
        self._warden: subprocess.Popen[bytes] | None = None
        self._end: str | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read_reports, name="warden", daemon=True)

    def start(self, command: Sequence[str], inherit: Sequence[int]) -> None:
        """Start QEMU, which inherits the descriptors `inherit` under their numbers."""
        lock = self.directory.lock_fd
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN), str(lock), str(self.directory.path), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(lock, *inherit),
            start_new_session=True,  # Ctrl-C reaches the harness alone, which then ends in order
        )
        self._reader.start()
        if not self._started.wait(_END_LIMIT_S):
            raise HostError("the warden of QEMU did not start")

    def end(self, wait_s: float = 0.0) -> str | None:
        """Return how QEMU ended in words, None if it runs still after `wait_s` seconds."""
        self._ended.wait(wait_s)
        return self._end if self._ended.is_set() else None

    def kill(self) -> None:
        """Kill QEMU and wait for its end; its files stay until `close`."""
        if self._warden is not None and self._warden.stdin is not None and self.end() is None:
            with contextlib.suppress(BrokenPipeError, ValueError):  # the warden is gone, QEMU with it
                self._warden.stdin.write(b"k")
                self._warden.stdin.flush()
            self._ended.wait(_END_LIMIT_S)

    def close(self) -> None:
        """Kill QEMU if it runs, and remove the private directory."""
        if self._warden is not None:
            if self._warden.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._warden.stdin.close()
            try:
                self._warden.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._warden.kill()  # the kernel kills QEMU then
                self._warden.wait()
            self._reader.join()
            self._warden = None
        self.directory.remove()

    def _read_reports(self) -> None:
        """Follow the warden's reports until it ends."""
        if self._warden is None or self._warden.stdout is None:
            return
        with self._warden.stdout as reports:
            for report in reports:
                word, _, number = report.decode().partition(" ")
                if word == "pid":
                    self.pid = int(number)
                    self._started.set()
                elif word == "exit":
                    self._note_end(_describe(int(number)))
        self._note_end("QEMU was killed together with its warden")
        self._started.set()

    def _note_end(self, end: str) -> None:
        if not self._ended.is_set():
            self._end = end
            self._ended.set()


def _describe(status: int) -> str:
    """Return a wait status in words."""
    if os.WIFSIGNALED(status):
        return f"QEMU was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.waitstatus_to_exitcode(status)
    if code == _CANNOT_EXECUTE:
        return "QEMU could not be executed"
    return f"QEMU exited with status {code}" if code else SELF_ENDED
