"""How the two drivers of a play introduce themselves in xenstore: keys and states, in their order.

| step                               | Linux                                     |
| ---------------------------------- | ----------------------------------------- |
| what the backend's rings may be    | xen_blkbk_probe, then state 2 (InitWait)  |
| what the frontend chose            | talk_to_blkback, then state 3             |
| what the disk is                   | connect of xenbus.c, then state 4         |
| the frontend has read it           | blkfront_connect, then state 4            |
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

VDEV: Final = 51712
BACK: Final = f"backend/vbd/1/{VDEV}"
FRONT: Final = f"device/vbd/{VDEV}"
RING_GREF: Final = 8
STATE: Final = "state"
_FRONT_XBT, _BACK_XBT, _RESIZE_XBT = 5, 7, 9


class Step(NamedTuple):
    """A value that a driver writes; ``xbt`` is its transaction, 0 for none."""

    source: str
    directory: str
    node: str
    value: Any
    xbt: int = 0

    @property
    def name(self) -> str:
        """What a scene calls it: its key, or for a state whose and which, as in ``backend 4``."""
        if self.node != STATE:
            return self.node
        return f"{'backend' if self.directory == BACK else 'frontend'} {self.value}"


@dataclass(slots=True)
class Handshake:
    """What both sides write while they connect.

    Of its steps, by their names, ``values`` get another value, ``skip`` are left out, and ``late`` come last.
    """

    order: int = 0
    max_order: int = 0
    queues: int = 1
    max_queues: int = 1
    sector_size: int = 512
    physical_sector_size: int = 4096
    flushes: int = 1
    discards: int = 1
    discard_secure: int = 0
    protocol: str = "x86_64-abi"

    def steps(
        self,
        offers: Mapping[str, Any],
        values: Mapping[str, object],
        skip: Collection[str],
        late: Collection[str],
    ) -> Iterator[Step]:
        """Yield all steps; ``offers`` are what the play says itself."""
        told = [self._changed(step, values) for step in self._steps(offers) if step.name not in skip]
        yield from (step for step in told if step.name not in late)
        yield from (step for step in told if step.name in late)

    @staticmethod
    def _changed(step: Step, values: Mapping[str, object]) -> Step:
        return step._replace(value=values.get(step.name, step.value))

    def _steps(self, offers: Mapping[str, Any]) -> Iterator[Step]:
        yield from self._wait(offers)
        yield from self._choose(offers)
        yield from self._describe(offers)
        yield Step("guest1", FRONT, STATE, 4)

    def _wait(self, offers: Mapping[str, Any]) -> Iterator[Step]:
        if offers["feature-max-indirect-segments"] is not None:
            yield Step("dom0", BACK, "feature-max-indirect-segments", offers["feature-max-indirect-segments"])
        yield Step("dom0", BACK, "multi-queue-max-queues", self.max_queues)
        yield Step("dom0", BACK, "max-ring-page-order", self.max_order)
        if self.max_order:
            yield Step("dom0", BACK, "max-ring-pages", 1 << self.max_order)
        yield Step("dom0", BACK, STATE, 2)

    def _choose(self, offers: Mapping[str, Any]) -> Iterator[Step]:
        chosen: dict[str, object] = {}
        if self.order:
            chosen |= {"ring-page-order": self.order, "num-ring-pages": 1 << self.order}
        if self.queues > 1:
            chosen["multi-queue-num-queues"] = self.queues
        for node, value in chosen.items():
            yield Step("guest1", FRONT, node, value, _FRONT_XBT)
        for queue in range(self.queues):
            directory = f"{FRONT}/queue-{queue}" if self.queues > 1 else FRONT
            for page in range(1 << self.order):
                node = f"ring-ref{page}" if self.order else "ring-ref"
                gref = RING_GREF + (queue << self.order) + page
                yield Step("guest1", directory, node, gref, _FRONT_XBT)
            yield Step("guest1", directory, "event-channel", 10 + queue, _FRONT_XBT)
        yield Step("guest1", FRONT, "protocol", self.protocol, _FRONT_XBT)
        yield Step("guest1", FRONT, "feature-persistent", offers["frontend"], _FRONT_XBT)
        yield Step("guest1", FRONT, STATE, 3)

    def _describe(self, offers: Mapping[str, Any]) -> Iterator[Step]:
        discard = {
            "discard-granularity": self.physical_sector_size,
            "discard-alignment": 0,
            "discard-secure": self.discard_secure,
        }
        disk = {
            "feature-flush-cache": self.flushes,
            **(discard if self.discards else {}),
            "feature-discard": self.discards,
            "feature-barrier": self.flushes,
            "feature-persistent": offers["backend"],
            "sectors": offers["sectors"],
            "info": offers["info"],
            "sector-size": self.sector_size,
            "physical-sector-size": self.physical_sector_size,
        }
        for node, value in disk.items():
            yield Step("dom0", BACK, node, value, _BACK_XBT)
        yield Step("dom0", BACK, STATE, 4)

    @staticmethod
    def resize(sectors: int) -> Iterator[Step]:
        """Yield how the backend says that its disk has another size now."""
        yield Step("dom0", BACK, "sectors", sectors, _RESIZE_XBT)
        yield Step("dom0", BACK, STATE, 4, _RESIZE_XBT)
