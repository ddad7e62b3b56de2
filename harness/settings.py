"""The settings of a scenario: what a user can switch, and the module parameters that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Side = Literal["backend", "frontend"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One switch: its default, the values that it takes, and the parameters that it sets on each side.

    ``choices`` maps a value to ``{side: {parameter: value}}``.  Where ``number`` is given, each whole
    number in that range is a value too; it goes as it is to the parameter ``parameter`` of each of
    ``sides``, if any.  Settings of the machine itself are read in :mod:`blkproof.harness.recording`.
    """

    meaning: str
    default: str
    choices: Mapping[str, Mapping[Side, Mapping[str, str]]] = field(default_factory=dict)
    number: range | None = None
    parameter: str = ""
    sides: tuple[Side, ...] = ()

    def accepts(self, value: str) -> bool:
        """Tell whether this is one of its values."""
        return value in self.choices or (
            self.number is not None and value.isascii() and value.isdigit() and int(value) in self.number
        )

    def values(self) -> str:
        """Return the values that it takes, for a user."""
        numbers = [] if self.number is None else [f"{self.number.start} to {self.number.stop - 1}"]
        return ", ".join([*self.choices, *numbers])

    def parameters(self, value: str, side: Side) -> Mapping[str, str]:
        """Return the module parameters that the value stands for on one side."""
        if value in self.choices:
            return self.choices[value].get(side, {})
        return {self.parameter: str(int(value))} if side in self.sides else {}


def _persistent(backend: str, frontend: str) -> Mapping[Side, Mapping[str, str]]:
    return {"backend": {"feature_persistent": backend}, "frontend": {"feature_persistent": frontend}}


SETTINGS: Final[Mapping[str, Setting]] = {
    "persistent": Setting(
        "who offers persistent grants",
        "on",
        {
            "on": _persistent("Y", "Y"),
            "off": _persistent("N", "N"),
            "backend-only": _persistent("Y", "N"),
            "frontend-only": _persistent("N", "Y"),
        },
    ),
    "indirect": Setting(
        "indirect descriptors: off, on (the driver's default), or that many segments in a request",
        "on",
        # Of 11 segments and fewer blkfront makes no indirect requests.
        {"on": {}, "off": {"frontend": {"max_indirect_segments": "0"}}},
        range(12, 257),
        "max_indirect_segments",
        ("frontend",),
    ),
    "max_persistent_grants": Setting(
        "persistent grants that the backend keeps for a ring",
        "1056",
        {},
        range(1, 65537),
        "max_persistent_grants",
        ("backend",),
    ),
    "ring_order": Setting(
        "pages of the ring, as a power of two, that both sides allow",
        "0",
        {},
        range(5),
        "max_ring_page_order",
        ("backend", "frontend"),
    ),
    # Blkfront makes no more queues than its domain has processors: the guest gets as many of them.
    "queues": Setting(
        "hardware queues, each with a ring of its own, that both sides allow; as many vCPUs of the guest",
        "1",
        {},
        range(1, 9),
        "max_queues",
        ("backend", "frontend"),
    ),
    "dom0_vcpus": Setting("virtual processors of dom0", "1", {}, range(1, 25)),
}
"""Every setting by its name."""


def module_parameters(settings: Mapping[str, str], side: Side) -> str:
    """Return the parameters with which a side's module is loaded, as insmod takes them."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        found.update(SETTINGS[name].parameters(value, side))
    return " ".join(f"{name}={value}" for name, value in sorted(found.items()))
