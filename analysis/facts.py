"""Everything that a capture says other than in its events: settings, parameters, xenstore, grant tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from blkproof.traces.capture import Capture
from blkproof.traces.errors import CaptureError
from blkproof.traces.fio import FioResult
from blkproof.traces.gnttab import GrantDump

BACKEND: Final = "dom0"
"""The source that runs the backend."""
BACKEND_MODULE: Final = "xen_blkback"
FRONTEND_MODULE: Final = "xen_blkfront"

_MEGAHERTZ = re.compile(r"Detected ([0-9]+(?:\.[0-9]+)?) MHz processor")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Facts:
    """What is known of a run besides its events; None or an empty table where the capture lacks it.

    ``settings`` are as asked for, ``parameters`` as the kernels showed them (source, module, parameter),
    ``before`` the contents of xenstore before the disk was attached, ``during`` the disk's part while it was,
    ``attached`` and ``detached`` Xen's list of mapped grants, ``tsc_hz`` the frequency of the common clock,
    ``cpus`` the number of processors that each source recorded on,
    ``unseen`` why there was no probe for an event, by event, ``absent`` what could not be read and why.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    ended: str = "ok"
    domids: Mapping[str, int] = field(default_factory=lambda: {"guest1": 1})
    parameters: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    during: Mapping[str, str] = field(default_factory=dict)
    attached: GrantDump | None = None
    detached: GrantDump | None = None
    fio: FioResult | None = None
    tsc_hz: float | None = None
    cpus: Mapping[str, int] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @classmethod
    def of(cls, capture: Capture) -> Self:
        """Collect the facts of ``capture``; what it lacks, or can't be read, is listed in ``absent``."""
        absent: list[str] = []

        def maybe(read: Callable[[], _T], default: _T) -> _T:
            try:
                return read()
            except CaptureError as error:
                absent.append(str(error).replace(f"{capture.path}/", ""))
                return default

        domains = capture.domains
        guest = next(iter(capture.domids), "guest1")
        return cls(
            settings=dict(capture.run.get("settings") or {}),
            ended=str(capture.run.get("ended", "ok")),
            domids=capture.domids,
            parameters={domain: maybe(lambda d=domain: capture.parameters(d), {}) for domain in domains},  # type: ignore[misc]  # a default binds the loop's value
            before=maybe(lambda: capture.xenstore("before"), {}),
            during=maybe(lambda: capture.xenstore("attached"), {}),
            attached=maybe(lambda: capture.grants("attached"), None),
            detached=maybe(lambda: capture.grants("detached"), None),
            fio=maybe(lambda: capture.fio(guest), None),
            tsc_hz=maybe(lambda: _tsc_hz(capture), None),
            cpus={domain: len(capture.below(f"{domain}/trace/stats")) for domain in domains},
            unseen=_reasons(capture.run.get("missing")),
            absent=tuple(absent),
        )

    def parameter(self, source: str, module: str, name: str) -> str | None:
        """Return a module parameter as the kernel of ``source`` showed it, or None."""
        return self.parameters.get(source, {}).get(module, {}).get(name)

    def switch(self, source: str, module: str, name: str) -> bool | None:
        """Return a boolean module parameter, or None when it is not known."""
        value = self.parameter(source, module, name)
        return {"Y": True, "1": True, "N": False, "0": False}.get(value or "")

    def number(self, source: str, module: str, name: str) -> int | None:
        """Return a numeric module parameter, or None when it is not known."""
        value = self.parameter(source, module, name)
        return int(value) if value is not None and re.fullmatch(r"-?[0-9]{1,10}", value) else None

    def guest(self, domid: int) -> str | None:
        """Return the name of the source that is the domain ``domid``."""
        return next((name for name, number in self.domids.items() if number == domid), None)


def _reasons(missing: object) -> dict[str, str]:
    return {str(event): str(why) for event, why in missing.items()} if isinstance(missing, dict) else {}


def _tsc_hz(capture: Capture) -> float | None:
    # Xen prints the frequency that it measured at boot; a restored snapshot keeps its console.
    found = _MEGAHERTZ.search(capture.text("consoles/xen.log"))
    return float(found[1]) * 1e6 if found else None
