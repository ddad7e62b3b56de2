"""One run: from a scenario and its settings to a sealed capture."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from blkproof.harness.errors import HarnessError, Loss, MachineLost, SessionError
from blkproof.harness.evidence import gather, refused_probes
from blkproof.harness.host import Accelerator, qemu_version
from blkproof.harness.machine import Machine
from blkproof.harness.parking import AGENT, GUEST, preparation
from blkproof.harness.pool import Pool
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.load import load_probes
from blkproof.harness.scenario import Scenario
from blkproof.harness.settings import SETTINGS, module_parameters
from blkproof.harness.shape import QEMU, Shape
from blkproof.images.build import Image
from blkproof.images.cache import cache_root
from blkproof.images.drivers import Driver
from blkproof.traces.capture import seal

Progress = Callable[[str], None]
AtLoad = Callable[[Machine, int], None]
"""What to do when the disk is attached, with the machine and the guest's domid."""

DISK: Final = "/dev/xvda"
VDEV: Final = 51712
"""The same disk as a number: major 202 << 8."""
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
class _Plan:
    scenario: Scenario
    settings: Mapping[str, str]
    image: Image
    accelerator: Accelerator
    drivers: Mapping[str, Driver]
    progress: Progress
    at_load: AtLoad

    @property
    def modules(self) -> Mapping[str, Path]:
        return {**self.image.modules, **{name: driver.module for name, driver in self.drivers.items()}}


def run(
    scenario: Scenario,
    settings: Mapping[str, str],
    *,
    image: Image,
    accelerator: Accelerator,
    out: Path,
    drivers: Mapping[str, Driver] | None = None,
    progress: Progress,
    at_load: AtLoad = lambda _machine, _domid: None,
) -> Path:
    """Run a scenario and return its sealed capture, the new directory ``out``.

    ``drivers`` replaces drivers of the image by others, by module name.  A
    crash or stall of the machine is a result: the capture holds what could be saved, and its ``ended``
    says what happened.  ``at_load`` is called when the disk is attached, and holds nothing up but itself.

    :raise ScenarioError: for a setting or value that there is not.
    :raise SessionError: when ``out`` exists or the agents fail.
    :raise HarnessError: when the host or harness fails; what was recorded until then is sealed all the same.
    """
    if out.exists():
        raise SessionError(f"{out} exists already; give another directory, or move it away")
    plan = _Plan(scenario, scenario.resolve(settings), image, accelerator, drivers or {}, progress, at_load)
    account = Account()
    with _workplace(out) as work:
        try:
            _record(plan, work, account)
        except HarnessError as error:
            account.ended = HARNESS_FAILED
            account.notes.append(str(error))
            raise
        finally:
            seal(work, _manifest(plan, account))
    return out


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """Give a hidden directory beside ``out``, which becomes ``out`` once it's sealed."""
    work = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(parents=True)
    try:
        yield work
    except HarnessError:
        work.rename(out)
        raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    work.rename(out)


def _record(plan: _Plan, work: Path, account: Account) -> None:
    probes = load_probes(plan.image.btf, plan.modules, cache_root() / "probes", plan.drivers)
    account.missing = dict(probes.missing)
    shape = Shape(dom0_vcpus=int(plan.settings["dom0_vcpus"]))
    pool = Pool(plan.image, plan.accelerator, progress=plan.progress, shape=shape)
    parked = preparation(probes.definitions, guest_vcpus=int(plan.settings["queues"]))
    with pool.parked(parked, rescue=work / "consoles") as machine:
        try:
            _put_drivers(machine, plan.drivers)
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


def _drive(machine: Machine, plan: _Plan, account: Account) -> None:
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


def _heed(line: str, machine: Machine, plan: _Plan, account: Account) -> bool:
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


def _salvage(machine: Machine, plan: _Plan, account: Account, *, guest_lives: bool) -> None:
    """Have dom0 send what it and the guest recorded until something died or everything stood still."""
    limit = f"{_GUEST_PULL_LIMIT_S * machine.accelerator.slowness:.0f}" if guest_lives else ""
    with machine.supervisor.salvage():
        try:
            result = machine.ssh.check_run(f"sh {AGENT}/salvage.sh {limit}", timeout_s=_PULL_LIMIT_S)
            for line in result.err.decode("utf-8", "replace").splitlines():
                _heed(line, machine, plan, account)
        except HarnessError as error:
            account.notes.append(f"dom0's evidence could not be had: {error}")


def _manifest(plan: _Plan, account: Account) -> dict[str, Any]:
    return {
        "scenario": plan.scenario.name,
        "seed": plan.scenario.seed,
        "settings": dict(plan.settings),
        "defaults": {name: setting.default for name, setting in SETTINGS.items()},
        "accelerator": {"name": plan.accelerator.name, "why": plan.accelerator.why},
        "cpu_model": plan.accelerator.cpu_model,
        "image": {
            "name": plan.image.name,
            "digest": plan.image.digest,
            "versions": dict(plan.image.versions),
        },
        "qemu": qemu_version(QEMU),
        "domids": {} if account.domid is None else {GUEST: account.domid},
        "vdevs": {GUEST: [VDEV]},
        "drivers": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in plan.modules.items()
        },
        "variants": {name: dict(driver.made_of) for name, driver in plan.drivers.items()},
        "missing": account.missing,
        "started": account.started.isoformat(timespec="milliseconds"),
        "seconds": account.seconds(),
        "ended": account.ended,
        "notes": account.notes,
    }
