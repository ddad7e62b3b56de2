"""What tracing costs: the instructions of a load with the recorders on and off, kept by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from blkproof.harness.host import qemu_version
from blkproof.harness.recording import DISK, Plan
from blkproof.harness.shape import QEMU
from blkproof.images.cache import cache_root

UNIT: Final = "instructions per request"
METHOD: Final = (
    "all instructions of Xen, dom0 and the guest from the begin of fio's job to its end, by QEMU's count of"
    " them (icount, shift 0: a TSC tick each), the same load from the same saved machine; idle time, if the"
    " load leaves any, counts as if it were worked"
)
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions of one load without and with all recorders, and ``less`` without one of them each."""

    requests: int
    off: int
    on: int
    less: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the figures per request; ``parts`` is what each recorder adds, where that was measured."""
        return {
            "off": round(self.off / self.requests),
            "on": round(self.on / self.requests),
            "percent": round(100 * (self.on / self.off - 1), 1),
            "parts": {name: round((self.on - less) / self.requests) for name, less in self.less.items()},
            "unit": UNIT,
            "requests": self.requests,
            "method": METHOD,
        }


def place(plan: Plan) -> Path:
    """Return the file that keeps the cost of tracing a plan: its name is a digest of all that shapes it."""
    parts = [
        _SCHEMA,
        plan.image.digest,
        qemu_version(QEMU),
        plan.prepared[0].key,
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in plan.modules.items()},
        plan.scenario.job(DISK),
        dict(plan.settings),
    ]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    return cache_root() / "costs" / f"{key}.json"


def load(file: Path) -> Cost | None:
    """Return what was measured before, None if nothing was."""
    try:
        return Cost(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save(file: Path, cost: Cost) -> None:
    """Keep a cost; it appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(cost)))
    unfinished.replace(file)
