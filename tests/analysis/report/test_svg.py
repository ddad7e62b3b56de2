"""Pictures are safe, small and on scale."""

from xml.etree import ElementTree as ET

import pytest
from blkproof.analysis.report import svg
from hypothesis import given
from hypothesis import strategies as st


def test_text_and_attributes_are_escaped() -> None:
    drawn = svg.tag("text", '<b>&"', class_='"><script>')
    assert ET.fromstring(drawn).text == '<b>&"'
    assert ET.fromstring(drawn).get("class") == '"><script>'


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.26, "1.3"), (-0.04, "0"), (-2.5, "-2.5")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert svg.number(value) == text


@given(st.floats(1e-6, 1e12), st.integers(2, 6))
def test_ticks_are_few_round_and_reach_the_top(high: float, about: int) -> None:
    marks = svg.ticks(high, about)
    assert marks[0] == 0
    assert marks[-1] >= high * 0.998
    assert 2 <= len(marks) <= about + 2


@given(st.floats(0, 100))
def test_a_linear_scale_keeps_its_ends_and_its_order(value: float) -> None:
    scale = svg.Linear(0, 100, 30, 250)
    assert scale(0) == 30
    assert scale(100) == 250
    assert 30 <= scale(value) <= 250


def test_a_logarithmic_scale_gives_every_decade_the_same_room() -> None:
    scale = svg.Logarithmic(10, 10_000, 0, 300)
    assert [round(scale(mark)) for mark in scale.decades()] == [0, 100, 200, 300]
    assert scale(0) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (950, "950"), (1500, "1.5k"), (2e6, "2M"), (0.25, "0.25")]
)
def test_axis_numbers(value: float, text: str) -> None:
    assert svg.short(value) == text
