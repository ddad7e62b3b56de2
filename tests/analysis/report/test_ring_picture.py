"""The ring at one moment: every slot is accounted for, whatever the indices are."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from blkproof.analysis.report.ring_picture import RingMoment, ring_picture
from hypothesis import given
from hypothesis import strategies as st

RING = RingMoment(nr_ents=32, req_prod=40, req_cons=38, rsp_prod=35, rsp_cons=34, marked=36, name="Q7")
INDEX = st.integers(0, 2**32 - 1)


def classes(ring: RingMoment) -> list[str]:
    return [node.get("class", "") for node in ET.fromstring(ring_picture(ring)).iter("path")]


def words(ring: RingMoment) -> list[str]:
    return [node.text or "" for node in ET.fromstring(ring_picture(ring)).iter("text")]


def test_each_slot_is_drawn_by_what_it_holds() -> None:
    drawn = classes(RING)
    assert [drawn.count(f"slot {kind}") for kind in ("answered", "held", "waiting")] == [1, 3, 2]
    assert drawn.count("slot offending") == 1
    assert {"6 outstanding", "1 answered, not yet taken", "26 free", "req_prod 40", "Q7"} <= set(words(RING))


def test_indices_at_one_slot_share_a_label() -> None:
    idle = RingMoment(nr_ents=32, req_prod=64, req_cons=64, rsp_prod=64, rsp_cons=64)
    assert {"rsp_cons =", "rsp_prod =", "req_cons =", "req_prod 64"} <= set(words(idle))


def test_indices_wrap_at_32_bits() -> None:
    around = RingMoment(nr_ents=32, req_prod=2, req_cons=1, rsp_prod=2**32 - 1, rsp_cons=2**32 - 2)
    assert around.outstanding == 4
    assert [count for *_, count in around.spans()] == [1, 2, 1]


@pytest.mark.parametrize("size", [32, 64, 128, 512])
def test_every_size_of_ring_is_drawn(size: int) -> None:
    assert f"{size} slots" in words(replace(RING, nr_ents=size))


def test_indices_that_no_ring_can_have_are_called_so() -> None:
    assert "indices at odds" in words(replace(RING, rsp_cons=1302))


@given(INDEX, INDEX, INDEX, INDEX, INDEX, st.sampled_from([32, 64, 128, 256, 512]))
def test_hostile_indices_are_drawn_within_the_ring(a: int, b: int, c: int, d: int, e: int, size: int) -> None:
    ring = RingMoment(size, a, b, c, d, e, "Q")
    assert all(count <= size for *_, count in ring.spans())
    assert len(classes(ring)) <= 3 * size + 3
