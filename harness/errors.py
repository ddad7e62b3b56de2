"""What can go wrong between this host and a running machine.

HarnessError                root; its text is one line fit for a user
├── HostError               the host lacks something: memory, disk, QEMU, a usable KVM
├── QemuError               QEMU did not start, or refused a command
├── WrongStateError         a machine was asked for what its state does not allow
├── WaitError               something did not come in time
├── SshError                dom0 could not be reached or did not answer
├── SnapshotError           a saved state is missing, cut off or altered
└── MachineLost             Xen, dom0, a guest or QEMU died, or nothing moved any more
"""

import enum

EXIT_HARNESS = 3
EXIT_CRASH = 4
EXIT_USAGE = 64
_TAIL_LINES = 12


class HarnessError(Exception):
    """The harness or its host failed; says nothing about the protocol."""

    exit_code = EXIT_HARNESS


class HostError(HarnessError):
    """The host lacks something that a machine needs; the message says what to do."""


class QemuError(HarnessError):
    """QEMU did not start or refused a command.

    `log` holds what QEMU wrote to its standard error.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(f"{message}: {_last_line(log)}" if log.strip() else message)
        self.log = log


class WrongStateError(HarnessError):
    """A machine was asked for something that its state does not allow: a mistake of the caller."""


class WaitError(HarnessError):
    """What was waited for did not come.

    `what` names it, `waited_s` is the time in seconds, `console_tail` the last lines seen.
    """

    def __init__(self, what: str, waited_s: float, console_tail: str = "") -> None:
        last = f"; last on the console: {_last_line(console_tail)!r}" if console_tail.strip() else ""
        super().__init__(f"{what}: did not happen within {waited_s:.1f} s{last}")
        self.what = what
        self.waited_s = waited_s
        self.console_tail = console_tail


class SshError(HarnessError):
    """The connection to dom0 failed, or a command in dom0 did."""


class SnapshotError(HarnessError):
    """A saved state is missing, cut off or altered, so no machine may start from it."""


class ScenarioError(HarnessError):
    """A scenario, a setting or its value that there is not, or a scenario file that is broken."""

    exit_code = EXIT_USAGE


class SessionError(HarnessError):
    """A run could not start, or the agent in dom0 failed; the message holds the agent's words."""


class Loss(enum.Enum):
    """How a machine was lost; the values are those of `ended` in a capture's manifest."""

    XEN_PANIC = "xen-panic"
    DOM0_PANIC = "dom0-panic"
    DOM0_OOPS = "dom0-oops"  # a thread of its kernel died; the rest lives, and so does its trace
    GUEST_PANIC = "guest-panic"
    QEMU_DIED = "qemu-died"
    STALL = "stall"

    @property
    def exit_code(self) -> int:
        """Return the exit code of a run that ended so."""
        return EXIT_HARNESS if self in {Loss.QEMU_DIED, Loss.STALL} else EXIT_CRASH

    @property
    def dom0_lives(self) -> bool:
        """Tell whether dom0 can still be asked for its evidence."""
        return self in {Loss.DOM0_OOPS, Loss.GUEST_PANIC, Loss.STALL}


class MachineLost(HarnessError):  # noqa: N818  (named for what happened to the machine, like ConnectionLost)
    """The machine crashed, died or stopped moving.

    `kind` says how, `phase` during what, `waited_s` how long that phase had lasted in seconds,
    `sign` is the console line or fact that gave it away, `console_tail` the last lines of the
    console that it came from.
    """

    def __init__(self, kind: Loss, phase: str, waited_s: float, sign: str, console_tail: str = "") -> None:
        super().__init__(f"{kind.value} after {waited_s:.1f} s of {phase}: {sign}")
        self.kind = kind
        self.phase = phase
        self.waited_s = waited_s
        self.sign = sign
        self.console_tail = console_tail
        self.exit_code = kind.exit_code


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last `lines` lines of a console's text."""
    return "\n".join(text.splitlines()[-lines:])


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
