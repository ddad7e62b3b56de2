"""The supervisor: watches one machine, and when it is lost saves the evidence and says how.

A thread reads all consoles and QEMU's end. A stall is lack of progress, not of output: whoever
runs a step says `with expect_progress(...)` and calls `beat(token)`; a token that changes (a step's
name, a counter) is progress, a repeated one is not.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from blkproof.harness.consoles import QEMU_LOG, Console, Sign, diagnose
from blkproof.harness.errors import HarnessError, Loss, MachineLost, tail
from blkproof.harness.process import SELF_ENDED

TICK_S = 0.05
# A crash prints for a while after its first line; its evidence is complete once all is quiet.
QUIET_S = 0.3
FLUSH_LIMIT_S = 3.0


@dataclass
class _Watch:
    """One stretch of work that has to move on."""

    what: str
    stall_s: float
    token: Hashable
    moved_at: float


class Supervisor:
    """Watches a machine from a thread of its own.

    `qemu_end` returns how QEMU ended, or None while it runs. `save` is called once, with the loss,
    before anything is ended; `end` then ends the machine if dom0 went with the loss.
    """

    def __init__(
        self,
        consoles: Mapping[str, Console],
        qemu_end: Callable[[], str | None],
        save: Callable[[MachineLost], None],
        end: Callable[[], None],
    ) -> None:
        self._consoles = consoles
        self._qemu_end = qemu_end
        self._save = save
        self._end = end
        self._phase, self._phase_began = "start", time.monotonic()
        self._lock = threading.Lock()
        self._watch: _Watch | None = None
        self._loss: MachineLost | None = None
        self._salvaging = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; QEMU's end is expected from now on."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def loss(self) -> MachineLost | None:
        """Return how the machine was lost, None while it is not."""
        return self._loss

    def phase(self, name: str) -> None:
        """Say what the machine is doing now, for the message of a loss."""
        self._phase, self._phase_began = name, time.monotonic()

    def check(self) -> None:
        """Raise MachineLost if the machine is lost, its evidence saved by then."""
        if self._loss is not None and not self._salvaging:
            raise self._loss

    @contextmanager
    def salvage(self) -> Iterator[None]:
        """Let dom0 be asked for its evidence after a guest's panic or a stall."""
        self._salvaging = self._loss is not None and self._loss.kind.dom0_lives
        try:
            yield
        finally:
            self._salvaging = False

    @contextmanager
    def expect_progress(self, what: str, stall_s: float) -> Iterator[None]:
        """Call it a stall if no new token comes for `stall_s` seconds inside the block."""
        with self._lock:
            self._watch = _Watch(what, stall_s, None, time.monotonic())
        try:
            yield
            self.check()
        finally:
            with self._lock:
                self._watch = None

    def beat(self, token: Hashable) -> None:
        """Tell of progress: any token that differs from the last one counts."""
        with self._lock:
            if self._watch is not None and token != self._watch.token:
                self._watch.token, self._watch.moved_at = token, time.monotonic()

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            if loss := self._look():
                self._settle(loss)
                return

    def _look(self) -> MachineLost | None:
        """Look at everything once; the first trouble found wins."""
        ended = self._qemu_end()
        signs = self._read_signs()  # after asking for the end: what came before it has been read then
        if signs:
            return self._lost_by(signs[0])
        if ended is not None:
            kind = Loss.XEN_PANIC if ended == SELF_ENDED else Loss.QEMU_DIED
            complaint = _complaint(self._consoles[QEMU_LOG].text())
            return self._lost(kind, ": ".join([ended, *complaint]), self._consoles["xen"].text())
        with self._lock:
            watch = self._watch
            if watch is not None and time.monotonic() - watch.moved_at > watch.stall_s:
                sign = f"{watch.what}: no progress for {watch.stall_s:g} s (last: {watch.token})"
                return self._lost(Loss.STALL, sign, "")
        return None

    def _read_signs(self) -> list[Sign]:
        return [
            sign
            for console in self._consoles.values()
            for line in console.new_lines()
            if (sign := diagnose(console.name, line))
        ]

    def _lost_by(self, sign: Sign) -> MachineLost:
        self._flush()
        # Xen's panic takes dom0 along, and dom0's its guests: the deepest layer that crashed is the cause.
        deeper = [other for other in self._read_signs() if _DEPTH[other.kind] < _DEPTH[sign.kind]]
        worst = min(deeper, key=lambda other: _DEPTH[other.kind], default=sign)
        text = self._consoles[worst.console].text()
        return self._lost(worst.kind, _whole_sign(worst.line, text), text)

    def _flush(self) -> None:
        begin = quiet_since = time.monotonic()
        sizes = self._sizes()
        while (now := time.monotonic()) - begin < FLUSH_LIMIT_S and now - quiet_since < QUIET_S:
            time.sleep(TICK_S)
            if (seen := self._sizes()) != sizes:
                sizes, quiet_since = seen, time.monotonic()

    def _sizes(self) -> list[int]:
        return [console.size() for console in self._consoles.values()]

    def _lost(self, kind: Loss, sign: str, console: str) -> MachineLost:
        waited_s = time.monotonic() - self._phase_began
        return MachineLost(kind, self._phase, waited_s, sign, tail(console))

    def _settle(self, loss: MachineLost) -> None:
        """Save, then end, then let the waiting session know."""
        try:
            self._save(loss)
        except (OSError, HarnessError) as error:  # a full disk must not hide the crash
            loss.args = (f"{loss}; its evidence could not be saved: {error}",)
        try:
            if not loss.kind.dom0_lives:
                self._end()
        finally:
            self._loss = loss


def _complaint(log: str) -> list[str]:
    """Return the last line of QEMU's log, if there is one that may tell why it ended."""
    return [line for line in log.splitlines() if line.strip() and "warning:" not in line][-1:]


def _whole_sign(line: str, text: str) -> str:
    """Return the line, with the next one when it only announces that ("Panic on CPU 0:")."""
    after = text.partition(line)[2].splitlines()[1:2]
    return " ".join([line, *after]) if line.endswith(":") else line


_DEPTH = {
    Loss.QEMU_DIED: 0,
    Loss.XEN_PANIC: 1,
    Loss.DOM0_PANIC: 2,
    Loss.DOM0_OOPS: 3,
    Loss.GUEST_PANIC: 4,
}
