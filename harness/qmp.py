"""QMP without asyncio: one command at a time over a socket pair that only QEMU and we hold.

`qemu.qmp` is asynchronous and still 0.x, so it is wrapped here and seen nowhere else. No socket
has a name in a file system: QEMU gets its end as an inherited descriptor.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from blkproof.harness.errors import QemuError
from qemu.qmp import ExecuteError, QMPClient, QMPError

T = TypeVar("T")
COMMAND_LIMIT_S = 30.0


class Qmp:
    """A connection to one QEMU's monitor, usable from any thread."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._client: QMPClient | None = None

    @property
    def qemu_fd(self) -> int:
        """Return the descriptor that QEMU has to inherit."""
        return self._theirs.fileno()

    def connect(self, limit_s: float) -> None:
        """Greet QEMU, which must have been started; it raises QemuError if it ends instead."""
        self._theirs.close()  # else the end of QEMU would not be the end of the connection
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # QEMU's end is told by our own errors
        self._thread.start()
        client = QMPClient("blkproof")
        try:
            self._wait(client.connect(self._ours), limit_s, "the greeting")
        except QMPError as error:
            raise QemuError("QEMU ended before it answered") from error
        self._client = client

    def execute(self, command: str, limit_s: float = COMMAND_LIMIT_S, /, **arguments: object) -> Any:
        """Execute a QMP command and return what it returned; hyphens are written as underscores."""
        return self.execute_raw(
            command, {key.replace("_", "-"): value for key, value in arguments.items()}, limit_s
        )

    def execute_raw(
        self, command: str, arguments: Mapping[str, object], limit_s: float = COMMAND_LIMIT_S
    ) -> Any:
        """Execute a QMP command with its arguments as QEMU spells them."""
        client = self._connected(command)
        try:
            return self._wait(client.execute(command, arguments), limit_s, command)
        except ExecuteError as error:
            raise QemuError(f"QEMU refused {command}: {error}") from error
        except QMPError as error:
            raise QemuError(f"QEMU ended during {command}") from error

    def human(self, command_line: str) -> str:
        """Execute a command of the human monitor and return its text."""
        return str(self.execute("human-monitor-command", command_line=command_line))

    def send_fd(self, name: str, fd: int) -> None:
        """Hand a copy of descriptor `fd` to QEMU under a name, for use in an `fd:` address."""
        client = self._connected("getfd")

        async def send() -> None:
            client.send_fd_scm(fd)
            await client.execute("getfd", {"fdname": name})

        try:
            self._wait(send(), COMMAND_LIMIT_S, "getfd")
        except (QMPError, OSError) as error:
            raise QemuError(f"QEMU did not take a file descriptor: {error}") from error

    def close(self) -> None:
        """End the connection and its thread; QEMU itself is left alone."""
        if self._client is not None:
            with contextlib.suppress(QMPError, QemuError, OSError, EOFError):  # QEMU may have gone first
                self._wait(self._client.disconnect(), COMMAND_LIMIT_S, "disconnect")
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        for end in (self._ours, self._theirs):
            end.close()
        self._client = None

    def _connected(self, command: str) -> QMPClient:
        if self._client is None:
            raise QemuError(f"{command}: there is no QEMU to send it to")
        return self._client

    def _wait(self, work: Coroutine[Any, Any, T], limit_s: float, what: str) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(limit_s)
        except TimeoutError as error:
            future.cancel()
            raise QemuError(f"QEMU did not answer {what} within {limit_s:g} s") from error
