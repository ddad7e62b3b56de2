"""The part of a run on the machine: from a plan to everything that was recorded, in a directory."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from blkproof.harness.errors import HarnessError, Loss, MachineLost, SessionError
from blkproof.harness.evidence import gather, refused_probes
from blkproof.harness.host import Accelerator
from blkproof.harness.machine import Machine
from blkproof.harness.parking import AGENT, GUEST, GUEST_ADDRESS
from blkproof.harness.parking import preparation as prepare
from blkproof.harness.pool import Pool, Preparation
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.load import load_probes
from blkproof.harness.scenario import Scenario
from blkproof.harness.settings import module_parameters
from blkproof.harness.shape import Shape
from blkproof.images.build import Image
from blkproof.images.cache import cache_root
from blkproof.images.drivers import Driver

Progress = Callable[[str], None]
AtLoad = Callable[[Machine, int], None]
"""What to do when the disk is attached, with the machine and the guest's domid."""

RECORDERS: Final = ("xen", "dom0", "guest")
"""Who records: Xen's own trace, and the probes of either kernel."""
DISK: Final = "/dev/xvda"
HARNESS_FAILED: Final = "harness"
"""``ended`` of a run that the harness itself broke off."""

_LOAD: Final = "load"
"""The agent's phase that begins when the disk is attached."""
_RUN_LIMIT_S: Final = 300.0
_PULL_LIMIT_S: Final = 20.0
_GUEST_PULL_LIMIT_S: Final = 3.0


@dataclass
class Account:
    """What is known of a run while it goes on; becomes the manifest's ``run``."""

    ended: str = HARNESS_FAILED
    domid: int | None = None
    notes: list[str] = field(default_factory=list)
    grant_dumps: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _begin: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Return the age of the run in seconds."""
        return round(time.monotonic() - self._begin, 3)


@dataclass(frozen=True)
class Plan:
    """What is to be run, all settings resolved; of RECORDERS, the ``silent`` ones record nothing."""

    scenario: Scenario
    settings: Mapping[str, str]
    image: Image
    accelerator: Accelerator
    drivers: Mapping[str, Driver]
    progress: Progress
    at_load: AtLoad = lambda _machine, _domid: None
    silent: tuple[str, ...] = ()

    @property
    def modules(self) -> Mapping[str, Path]:
        """Return the drivers that run, by module name, with DWARF."""
        return {**self.image.modules, **{name: driver.module for name, driver in self.drivers.items()}}

    @property
    def shape(self) -> Shape:
        """Return the machine that the settings ask for."""
        return Shape(dom0_vcpus=int(self.settings["dom0_vcpus"]))

    @functools.cached_property
    def prepared(self) -> tuple[Preparation, Mapping[str, str]]:
        """Return how that machine is parked, and which probes that leaves out, with the reasons."""
        probes = load_probes(self.image.btf, self.modules, cache_root() / "probes", self.drivers)
        return prepare(probes.definitions, guest_vcpus=int(self.settings["queues"])), probes.missing


def record(plan: Plan, work: Path, account: Account) -> None:
    """Run a plan and put everything that was recorded into ``work``.

    :raise HarnessError: when the host, the harness or the agents fail.
    """
    preparation, missing = plan.prepared
    account.missing = dict(missing)
    pool = Pool(plan.image, plan.accelerator, progress=plan.progress, shape=plan.shape)
    with pool.parked(preparation, rescue=work / "consoles") as machine:
        try:
            _put_drivers(machine, plan.drivers)
            if plan.silent:
                machine.ssh.check_run(shlex.join(["sh", f"{AGENT}/silence.sh", GUEST_ADDRESS, *plan.silent]))
            _drive(machine, plan, account)
        except MachineLost as lost:
            account.ended = lost.kind.value
            account.notes.append(str(lost))
            if lost.kind.dom0_lives:
                _salvage(machine, plan, account, guest_lives=lost.kind is not Loss.GUEST_PANIC)
        finally:
            account.notes += gather(machine, work, account.grant_dumps)
    if refused := refused_probes(work):
        raise ProbeError(f"a driver does not take a probe: {'; '.join(refused)}")


def _put_drivers(machine: Machine, drivers: Mapping[str, Driver]) -> None:
    for name, driver in drivers.items():
        machine.ssh.put(driver.loadable.read_bytes(), f"/run/blkproof/drivers/{name.replace('_', '-')}.ko")


def _drive(machine: Machine, plan: Plan, account: Account) -> None:
    """Let dom0's agent run the scenario, and follow what it says."""
    stall_s = round(plan.scenario.stall_s * plan.accelerator.slowness)
    words = [
        *("sh", f"{AGENT}/run.sh", GUEST),
        *(module_parameters(plan.settings, side) for side in ("backend", "frontend")),
        str(stall_s),
    ]
    said: list[str] = []

    def listen(_stream: str, line: str) -> None:
        if not _heed(line, machine, plan, account):
            said.append(line)

    # The agent knows better what a stall of the load is; this is for the agent itself.
    with machine.supervisor.expect_progress("the agent in dom0", stall_s=2.0 * stall_s + 20):
        result = machine.ssh.run(
            shlex.join(words),
            plan.scenario.job(DISK).encode(),
            timeout_s=_RUN_LIMIT_S,
            on_line=listen,
        )
    account.notes += said
    if result.rc:
        raise SessionError(f"the agent in dom0 ended with status {result.rc}: {'; '.join(said) or 'no word'}")


def _heed(line: str, machine: Machine, plan: Plan, account: Account) -> bool:
    """Take in a line of the agent's; tell whether it was one of those made for us."""
    match line.split(" ", 2):
        case ["blkproof:", "phase", phase]:
            machine.supervisor.phase(phase)
            machine.supervisor.beat(phase)
            plan.progress(phase)
            if phase == _LOAD and account.domid is not None:
                plan.at_load(machine, account.domid)
        case ["blkproof:", "beat", counters]:
            machine.supervisor.beat(counters)
        case ["blkproof:", "domid", domid] if domid.isdigit():
            account.domid = int(domid)
        case ["blkproof:", "grants", "gnttab.txt" | "gnttab_attached.txt" as name]:
            account.grant_dumps.append(name)
        case ["blkproof:", "ended", how]:
            account.ended = how
        case _:
            return False
    return True


def _salvage(machine: Machine, plan: Plan, account: Account, *, guest_lives: bool) -> None:
    """Have dom0 send what it and the guest recorded until something died or everything stood still."""
    limit = f"{_GUEST_PULL_LIMIT_S * machine.accelerator.slowness:.0f}" if guest_lives else ""
    with machine.supervisor.salvage():
        try:
            result = machine.ssh.check_run(f"sh {AGENT}/salvage.sh {limit}", timeout_s=_PULL_LIMIT_S)
            for line in result.err.decode("utf-8", "replace").splitlines():
                _heed(line, machine, plan, account)
        except HarnessError as error:
            account.notes.append(f"dom0's evidence could not be had: {error}")
