"""SSH into dom0: commands with their output as it comes, and files put in place."""

import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paramiko
from blkproof.harness.errors import SshError

Stream = Literal["out", "err"]
OnLine = Callable[[Stream, str], None]

_POLL_S = 0.005
_CONNECT_LIMIT_S = 5.0
_CHUNK = 1 << 15
# A connection breaks at once when the machine dies; the supervisor needs a moment to say how.
LOSS_GRACE_S = 5.0
_REFUSALS = (
    *("Channel closed", "open failed", "Connect failed", "Administratively prohibited"),
    "Unable to open channel",  # paramiko's words when the reason got lost
)
_OPENINGS = 5
_REOPEN_S = 0.05


@dataclass(frozen=True)
class Result:
    """A finished command: exit status and output."""

    rc: int
    out: bytes
    err: bytes

    def text(self) -> str:
        """Return standard output as text, without white space at the ends."""
        return self.out.decode("utf-8", "replace").strip()


class Ssh:
    """A connection to dom0 as root, through a loopback port of this host."""

    def __init__(
        self,
        port: int,
        key: Path,
        host_key: Path,
        *,
        slowness: float = 1.0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a connection.

        All limits are stretched by `slowness`; `check` runs while a command is waited for and may raise.
        """
        self._port = port
        self._key = key
        self._host_key = host_key
        self._slowness = slowness
        self._connect_limit_s = _CONNECT_LIMIT_S * slowness
        self._check = check
        self._transport: paramiko.Transport | None = None

    def connect(self) -> None:
        """Connect and log in, once; SshError if dom0 does not answer or is not the one we built."""
        if self._transport is not None:
            return
        with self._as_ssh_error(f"SSH to dom0 (port {self._port})"):
            transport = paramiko.Transport(
                socket.create_connection(("127.0.0.1", self._port), self._connect_limit_s)
            )
            try:
                self._log_in(transport)
            except BaseException:
                transport.close()
                raise
        self._transport = transport

    def run(
        self, command: str, stdin: bytes = b"", *, timeout_s: float = 30.0, on_line: OnLine | None = None
    ) -> Result:
        """Run a shell command in dom0 and return its exit status and output.

        `on_line` gets each line of either stream as soon as it is whole. SshError if it takes
        longer than `timeout_s` seconds (on KVM; stretched for a slower accelerator).
        """
        self.connect()
        with self._as_ssh_error(f"SSH command {_short(command)}"):
            channel = self._open_channel()
            try:
                channel.exec_command(command)
                return self._attend(channel, stdin, _Output(on_line), command, timeout_s * self._slowness)
            finally:
                channel.close()

    def check_run(self, command: str, stdin: bytes = b"", *, timeout_s: float = 30.0) -> Result:
        """Run a command as `run` does; SshError with what it printed if its exit status is not 0."""
        result = self.run(command, stdin, timeout_s=timeout_s)
        if result.rc:
            said = (result.err or result.out).decode("utf-8", "replace").strip()
            raise SshError(f"dom0: {_short(command)} ended with status {result.rc}: {said or 'no output'}")
        return result

    def put(self, data: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file in dom0, whole or not at all, with its directories."""
        final = shlex.quote(path)
        temporary = shlex.quote(f"{path}.new")
        directory = shlex.quote(str(Path(path).parent))
        fill = f"mkdir -p {directory} && cat > {temporary}"
        self.check_run(f"{fill} && chmod {mode:o} {temporary} && mv {temporary} {final}", data)

    @contextmanager
    def opened(self, command: str, terminal: os.terminal_size | None = None) -> Iterator[paramiko.Channel]:
        """Give the channel of a running command to talk to, on a terminal of that size if one is given."""
        self.connect()
        with self._as_ssh_error(f"SSH command {_short(command)}"):
            channel = self._open_channel()
            try:
                if terminal is not None:
                    channel.get_pty(os.environ.get("TERM", "vt100"), terminal.columns, terminal.lines)
                else:
                    channel.set_combine_stderr(True)
                channel.exec_command(command)
                yield channel
            finally:
                channel.close()

    def close(self) -> None:
        """End the connection; a later command opens a new one."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _log_in(self, transport: paramiko.Transport) -> None:
        transport.banner_timeout = transport.auth_timeout = self._connect_limit_s
        transport.start_client(timeout=self._connect_limit_s)
        if transport.get_remote_server_key().get_base64() != self._host_key.read_text().split()[1]:
            raise SshError(f"SSH: port {self._port} answers with a host key that is not this image's")
        transport.auth_publickey("root", paramiko.Ed25519Key.from_private_key_file(str(self._key)))

    @contextmanager
    def _as_ssh_error(self, what: str) -> Iterator[None]:
        """Turn a break of the connection into MachineLost if that is why, else into SshError."""
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            until = time.monotonic() + LOSS_GRACE_S
            while time.monotonic() < until:
                self._check()
                time.sleep(_POLL_S)
            raise SshError(f"{what}: {error or type(error).__name__}") from error

    def _open_channel(self) -> paramiko.Channel:
        """Open a channel, and try again for a while when it is refused.

        dropbear can refuse a channel that is opened right after another one closes.
        """
        transport = self._transport
        if transport is None:
            raise SshError("SSH: the connection was closed")
        for left in reversed(range(_OPENINGS)):
            try:
                return transport.open_session(timeout=self._connect_limit_s)
            except paramiko.SSHException as error:
                refused = any(sign in str(error) for sign in _REFUSALS)
                if not (left and refused and transport.is_active()):
                    raise
            time.sleep(_REOPEN_S)
        raise AssertionError("the last try returned or raised")

    def _attend(
        self, channel: paramiko.Channel, stdin: bytes, output: "_Output", command: str, timeout_s: float
    ) -> Result:
        """Feed and drain a running command until it has ended and all its output is here."""
        begin = time.monotonic()
        unsent, open_input = memoryview(stdin), True
        while True:
            moved = False
            if open_input and not unsent:
                channel.shutdown_write()
                open_input = False
            elif open_input and channel.send_ready():
                unsent = unsent[channel.send(bytes(unsent[:_CHUNK])) :]
                moved = True
            ended = channel.exit_status_ready() and (channel.eof_received or channel.closed)
            moved = output.take(channel) or moved
            if ended and not moved:
                output.finish()
                return Result(_exit_status(channel), bytes(output.out), bytes(output.err))
            if not moved:
                self._pause(command, time.monotonic() - begin, timeout_s)

    def _pause(self, command: str, waited_s: float, timeout_s: float) -> None:
        self._check()
        if waited_s > timeout_s:
            raise SshError(f"SSH: {_short(command)} did not end within {timeout_s:g} s")
        time.sleep(_POLL_S)


class _Output:
    """Both streams of a command, and the lines of them that were not handed on yet."""

    def __init__(self, on_line: OnLine | None) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._on_line = on_line
        self._told: dict[Stream, int] = {"out": 0, "err": 0}

    def take(self, channel: paramiko.Channel) -> bool:
        """Take what has arrived; tell whether anything had."""
        moved = False
        while channel.recv_ready() and (data := channel.recv(_CHUNK)):
            self.out += data
            moved = True
        while channel.recv_stderr_ready() and (data := channel.recv_stderr(_CHUNK)):
            self.err += data
            moved = True
        if moved:
            self._tell("out", self.out)
            self._tell("err", self.err)
        return moved

    def finish(self) -> None:
        """Hand on last lines that have no line end."""
        streams: tuple[tuple[Stream, bytearray], ...] = (("out", self.out), ("err", self.err))
        for stream, data in streams:
            if self._told[stream] < len(data):
                self._tell(stream, data + b"\n")

    def _tell(self, stream: Stream, data: bytearray) -> None:
        if self._on_line is None:
            return
        while (end := data.find(b"\n", self._told[stream])) >= 0:
            line = data[self._told[stream] : end].decode("utf-8", "replace")
            self._told[stream] = end + 1
            self._on_line(stream, line)


def _exit_status(channel: paramiko.Channel) -> int:
    """Return the command's exit status; paramiko has -1 if the connection broke before it came."""
    if (status := channel.recv_exit_status()) < 0:
        raise EOFError("the connection broke")
    return status


def _short(command: str) -> str:
    return repr(command if len(command) <= 80 else f"{command[:77]}...")
