"""Measures what tracing costs, by doing the same load with recorders off and on in deterministic mode."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blkproof.harness import cost
from blkproof.harness.cost import Cost
from blkproof.harness.errors import HarnessError, SessionError
from blkproof.harness.parking import GUEST
from blkproof.harness.recording import RECORDERS, Account, Plan, record
from blkproof.harness.settings import SETTINGS
from blkproof.traces.errors import CaptureError
from blkproof.traces.marks import Load, read_load


def unknown(plan: Plan) -> Mapping[str, Any]:
    """Return what a manifest says of a cost that was not measured."""
    sets = "".join(
        f" --set {name}={value}"
        for name, value in plan.settings.items()
        if value != plan.scenario.settings.get(name, SETTINGS[name].default)
    )
    return {"why": f"not measured; `blkproof cost {plan.scenario.name}{sets}` measures it"}


def of_run(plan: Plan, work: Path, account: Account) -> Mapping[str, Any]:
    """Return what is known of the cost of tracing a run that was recorded into ``work``.

    In deterministic mode it is measured right now, by another run with all recorders off.
    """
    file = cost.place(plan)
    found = cost.load(file)
    if found is None and plan.accelerator.deterministic:
        if account.ended != "ok":
            return {"why": f"not measured; the run ended with {account.ended!r}"}
        try:
            found = _cost(_load(work, "with all"), _without(plan, RECORDERS))
        except HarnessError as error:  # which is no reason to throw a good run away
            return {"why": f"not measured; {error}"}
        cost.save(file, found)
    return unknown(plan) if found is None else found.to_json()


def measure(plan: Plan) -> Cost:
    """Measure the cost of tracing a plan, which is deterministic, and that of each recorder; keep it.

    :raise SessionError: when a run does not end well, or its load is not the same as the others'.
    """
    found = _cost(_without(plan, ()), _without(plan, RECORDERS))
    found = replace(found, less={name: _without(plan, (name,)).ticks for name in RECORDERS})
    cost.save(cost.place(plan), found)
    return found


def _without(plan: Plan, silent: tuple[str, ...]) -> Load:
    """Do the load without some of the recorders."""
    which = (
        "without any recorder" if silent == RECORDERS else f"without {silent[0]}" if silent else "with all"
    )
    plan.progress(f"the load {which}")
    account = Account()
    with tempfile.TemporaryDirectory(prefix="blkproof-cost-") as directory:
        record(replace(plan, silent=silent, progress=_quiet), Path(directory), account)
        if account.ended != "ok":
            raise SessionError(f"the load {which} ended with {account.ended!r}: {'; '.join(account.notes)}")
        return _load(Path(directory), which)


def _load(directory: Path, which: str) -> Load:
    try:
        return read_load(directory, GUEST)
    except CaptureError as error:
        raise SessionError(f"the load {which} left no usable record: {error}") from error


def _cost(on: Load, off: Load) -> Cost:
    if on.ios != off.ios:
        raise SessionError(f"the loads differ: {on.ios} requests of fio's when recorded, {off.ios} when not")
    if not on.requests:
        raise SessionError("no request was seen: the probe be_request is missing, or the load makes none")
    return Cost(on.requests, off.ticks, on.ticks)


def _quiet(_text: str) -> None:
    """Say nothing of a run that is only a step of a larger one."""
