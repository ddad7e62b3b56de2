"""A picture of one ring at one moment: its slots, its four indices, and the request in question."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from blkproof.analysis.report import svg
from markupsafe import Markup

WIDTH, MIDDLE_X, MIDDLE_Y, OUTER, INNER = 360.0, 180.0, 132.0, 84.0, 58.0
INDEX_MASK = 0xFFFF_FFFF
SINGLE_SLOTS = 64
"""A ring of more slots is drawn as arcs: its slots would be thinner than a line."""


@dataclass(frozen=True, slots=True)
class RingMoment:
    """The free-running indices of a ring; ``marked`` is the index of the request in question."""

    nr_ents: int
    req_prod: int
    req_cons: int
    rsp_prod: int
    rsp_cons: int
    marked: int | None = None
    name: str = ""

    def spans(self) -> Iterator[tuple[str, str, int, int]]:
        """Give the parts of the ring that are in use: class, words, first index, number of slots.

        Numbers are cut to the ring's size: a hostile index may lie anywhere.
        """
        for kind, words, first, behind in (
            ("answered", "answered, not yet taken", self.rsp_cons, self.rsp_prod),
            ("held", "with the backend", self.rsp_prod, self.req_cons),
            ("waiting", "waiting on the ring", self.req_cons, self.req_prod),
        ):
            yield kind, words, first, min((behind - first) & INDEX_MASK, self.nr_ents)

    @property
    def outstanding(self) -> int:
        """Requests pushed and not yet seen answered by the frontend; more than the ring holds is an error."""
        return (self.req_prod - self.rsp_cons) & INDEX_MASK


def _at(turn: float, radius: float) -> svg.Point:
    angle = 2 * math.pi * turn
    return MIDDLE_X + radius * math.sin(angle), MIDDLE_Y - radius * math.cos(angle)


def _sector(first: float, last: float, kind: str, *, grow: float = 0.0) -> Markup:
    """Draw a piece of the ring between two turns (0 to 1)."""
    outer, inner = OUTER + grow, INNER - grow
    wide = 1 if last - first > 0.5 else 0
    corners = [_at(first, outer), _at(last, outer), _at(last, inner), _at(first, inner)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = [(svg.number(x), svg.number(y)) for x, y in corners]
    path = f"M{ax} {ay}A{outer:g} {outer:g} 0 {wide} 1 {bx} {by}L{cx} {cy}"
    path += f"A{inner:g} {inner:g} 0 {wide} 0 {dx} {dy}Z"
    return svg.tag("path", d=path, class_=f"slot {kind}")


def _slots(ring: RingMoment) -> Iterator[Markup]:
    size = ring.nr_ents
    yield from (_sector(0, 0.5, "free"), _sector(0.5, 1, "free"))  # an arc can't end where it begins
    for kind, _words, first, count in ring.spans():
        if size > SINGLE_SLOTS:
            start = first % size / size
            halves = (start, start + count / size / 2, start + count / size)
            yield from (_sector(*half, kind) for half in pairwise(halves) if count)
            continue
        for index in range(first, first + count):
            start = index % size / size
            yield _sector(start, start + 1 / size, kind)
    if size <= SINGLE_SLOTS:
        for index in range(size):
            yield svg.line(_at(index / size, INNER), _at(index / size, OUTER), "wall")


def _pointers(ring: RingMoment) -> list[tuple[float, str]]:
    """Give every index with its turn; indices at one slot share a label."""
    named = (
        ("rsp_cons", ring.rsp_cons),
        ("rsp_prod", ring.rsp_prod),
        ("req_cons", ring.req_cons),
        ("req_prod", ring.req_prod),
    )
    together: dict[int, list[str]] = {}
    for name, value in named:
        together.setdefault(value, []).append(name)
    return [
        (value % ring.nr_ents / ring.nr_ents, f"{' = '.join(names)} = {value}")
        for value, names in together.items()
    ]


def _labels(ring: RingMoment) -> Iterator[Markup]:
    """Write the labels beside the ring, moved apart where they would touch."""
    for side in ("right", "left"):
        mine = [item for item in _pointers(ring) if (item[0] < 0.5) == (side == "right")]
        below = -math.inf
        for turn, words in sorted(mine, key=lambda item: _at(item[0], OUTER)[1]):
            start, bend = _at(turn, OUTER + 2), _at(turn, OUTER + 12)
            y = max(bend[1], below + 24)
            below = y
            right = side == "right"
            x = MIDDLE_X + (OUTER + 18) * (1 if right else -1)
            yield svg.polyline([start, bend, (x, y)], "pointer")
            names, _equals, value = words.rpartition(" = ")
            anchor = "start" if right else "end"
            x += 3 if right else -3
            for row, name in enumerate(names.split(" = ")):
                last = row == names.count(" = ")
                yield svg.text(
                    x, y + 4 + 12 * row, f"{name} {value}" if last else f"{name} =", "index", anchor
                )
            below += 12 * names.count(" = ")


def ring_picture(ring: RingMoment) -> Markup:
    """Draw the ring; slot 0 is at the top and indices grow clockwise."""
    parts: list[str] = [*_slots(ring)]
    if ring.marked is not None:
        start = ring.marked % ring.nr_ents / ring.nr_ents
        least = max(1 / ring.nr_ents, 1 / 120)
        parts.append(_sector(start, start + least, "offending", grow=4))
        x, y = _at(start + least / 2, INNER - 14)
        parts.append(svg.text(x, y + 4, ring.name, "offender", "middle"))
    parts += _labels(ring)
    parts.append(svg.text(MIDDLE_X, MIDDLE_Y, f"{ring.nr_ents} slots", "name", "middle"))
    sane = ring.outstanding <= 2 * ring.nr_ents
    words = f"{ring.outstanding} outstanding" if sane else "indices at odds"
    parts.append(svg.text(MIDDLE_X, MIDDLE_Y + 15, words, "note", "middle"))
    top = 2 * MIDDLE_Y + 4
    used = 0
    for row, (kind, words, _first, count) in enumerate(ring.spans()):
        used += count
        parts += _key(row, kind, f"{count} {words}", top)
    parts += _key(3, "free", f"{max(ring.nr_ents - used, 0)} free", top)
    title = f"ring of {ring.nr_ents} slots, {words}"
    return svg.picture(WIDTH, top + 38, title, parts)


def _key(place: int, kind: str, words: str, top: float) -> list[Markup]:
    x, y = 8 + 190 * (place % 2), top + 18 * (place // 2)
    return [
        svg.tag("rect", x=x, y=y, width=11, height=11, class_=f"slot {kind}"),
        svg.text(x + 17, y + 9.5, words, "name"),
    ]
