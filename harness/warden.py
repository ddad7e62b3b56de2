"""The process between the harness and one QEMU, so that nothing outlives the harness.

It starts QEMU, reports on standard output (`pid N`, later `exit N`, as a wait status), and
waits for the end of its standard input. That end comes when the harness closes the pipe and
also when the harness is killed in any way; then it kills QEMU and removes the machine's
private directory. A byte on standard input kills QEMU only: its files stay to be read. Should
the warden itself be killed, the kernel kills QEMU (PR_SET_PDEATHSIG), and the next machine
sweeps the directory.

The harness cannot set PR_SET_PDEATHSIG for QEMU itself: the signal is tied to the thread
that forked, and a machine may well be started from a thread that ends before it.

Run as a script, isolated from site packages: `warden.py LOCK_FD DIRECTORY COMMAND...`.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
FIRST_INHERITED_FD = 3
LAST_INHERITED_FD = 1024
CANNOT_EXECUTE = 127


def start(command: list[str], log: str) -> int:
    """Start the command with its output in file `log`; return its process id."""
    warden = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != warden:  # the warden died before the signal was armed
            os._exit(CANNOT_EXECUTE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
        os.dup2(1, 2)
        os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(CANNOT_EXECUTE)


def watch(pid: int) -> None:
    """Report the end of process `pid`, return once standard input has ended and it is dead."""
    process = os.pidfd_open(pid)
    alive = True
    while True:
        waited_for = [0, process] if alive else [0]
        ready, _, _ = select.select(waited_for, [], [])
        if alive and process in ready:
            alive = False
            _report(f"exit {os.waitpid(pid, 0)[1]}")
        if 0 not in ready:
            continue
        order = os.read(0, 1)
        if alive:
            os.kill(pid, signal.SIGKILL)
        if not order:
            break
    if alive:
        os.waitpid(pid, 0)


def remove(directory: str) -> None:
    """Remove the machine's private directory, which holds plain files only."""
    for name in os.listdir(directory):  # noqa: PTH208  (pathlib would cost start-up time)
        os.unlink(os.path.join(directory, name))  # noqa: PTH108,PTH118  (same)
    os.rmdir(directory)  # noqa: PTH106  (same)


def _report(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the harness is gone: standard input will end too
        os.write(1, f"{line}\n".encode())


def main(arguments: list[str]) -> None:
    """Watch over one command until the harness is done with it."""
    lock, directory, command = int(arguments[0]), arguments[1], arguments[2:]
    for name in ("SIGINT", "SIGHUP", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.set_inheritable(lock, False)
    pid = start(command, os.path.join(directory, "qemu.log"))  # noqa: PTH118  (same)
    os.closerange(FIRST_INHERITED_FD, lock)  # else QEMU's sockets would stay open after its death
    os.closerange(lock + 1, LAST_INHERITED_FD)
    _report(f"pid {pid}")
    watch(pid)
    remove(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
