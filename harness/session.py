"""One run: from a scenario and its settings to a sealed capture."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from blkproof.harness import costing
from blkproof.harness.errors import HarnessError, SessionError
from blkproof.harness.host import Accelerator, qemu_version
from blkproof.harness.parking import GUEST
from blkproof.harness.recording import HARNESS_FAILED, Account, AtLoad, Plan, Progress, record
from blkproof.harness.scenario import Scenario
from blkproof.harness.settings import SETTINGS
from blkproof.harness.shape import QEMU
from blkproof.images.build import Image
from blkproof.images.drivers import Driver
from blkproof.traces.capture import seal

VDEV: Final = 51712
"""The guest's disk as a number: major 202 << 8."""


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
    plan = Plan(scenario, scenario.resolve(settings), image, accelerator, drivers or {}, progress, at_load)
    account = Account()
    cost: Mapping[str, Any] = costing.unknown(plan)
    with _workplace(out) as work:
        try:
            record(plan, work, account)
            cost = costing.of_run(plan, work, account)
        except HarnessError as error:
            account.ended = HARNESS_FAILED
            account.notes.append(str(error))
            raise
        finally:
            seal(work, {**_manifest(plan, account), "tracing_cost": cost})
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


def _manifest(plan: Plan, account: Account) -> dict[str, Any]:
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
