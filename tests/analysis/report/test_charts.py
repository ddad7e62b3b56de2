"""Charts show what they were given, extremes included."""

from xml.etree import ElementTree as ET

from blkproof.analysis.report import charts


def words(drawing: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(drawing).iter("text")]


def rects(drawing: str) -> list[float]:
    return [float(node.get("width", "0")) for node in ET.fromstring(drawing).iter("rect")]


def test_bars_are_as_long_as_their_values_and_say_them() -> None:
    drawing = charts.bars("t", "maps per request", [charts.Bar("on", 5), charts.Bar("off", 10)])
    short, long = rects(drawing)
    assert abs(2 * short - long) < 0.2
    assert {"on", "off", "5", "10", "maps per request"} <= set(words(drawing))


def test_a_long_name_stays_inside_the_chart() -> None:
    (name, *_rest) = words(charts.bars("t", "u", [charts.Bar("x" * 500, 1)]))
    assert len(name) == charts.NAME
    assert name.endswith("…")


def test_what_was_not_measured_has_no_bar() -> None:
    drawing = charts.bars("t", "u", [charts.Bar("on", None)])
    assert rects(drawing) == []
    assert "not measured" in words(drawing)


def test_a_spike_survives_thinning() -> None:
    y = [1.0] * 20_000
    y[12_345] = 99.0
    drawing = charts.steps("t", ("x", "y"), charts.Steps(range(20_000), y), cap=None, cap_name="")
    line = next(node for node in ET.fromstring(drawing).iter("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    assert len(points) < 4000
    spike, ground, foot = sorted({y for _, y in points})
    assert spike < 30 < ground < foot


def test_a_cap_in_reach_is_drawn_and_one_far_off_is_named() -> None:
    data = charts.Steps([0, 1, 2], [0, 20, 3])
    near = charts.steps("t", ("x", "y"), data, cap=32, cap_name="ring size")
    far = charts.steps("t", ("x", "y"), data, cap=1056, cap_name="cap")
    assert 'class="cap"' in near
    assert {"ring size 32", "y, at most 20"} <= set(words(near))
    assert 'class="cap"' not in far
    assert "cap 1056, far above ↑" in words(far)


def test_a_histogram_has_one_bar_a_value_even_for_a_hostile_count() -> None:
    assert len(rects(charts.histogram("t", ("x", "y"), {1: 10, 32: 5, 65_535: 1}))) == 3


def test_counts_of_neighbours_do_not_overprint() -> None:
    def counted(**bars: int) -> set[str]:
        drawing = charts.histogram("t", ("x", "y"), {int(key[1:]): value for key, value in bars.items()})
        return {"611", "148"} & set(words(drawing))

    assert counted(_1=611, _2=148, _32=9) == {"611"}
    assert counted(_1=611, _16=148, _32=9) == {"611", "148"}


def test_distributions_of_runs_are_told_apart_without_colour() -> None:
    samples = [[10.0, 100.0], [20.0, 30.0, 1e6], []]
    drawing = charts.distribution("t", "ticks", samples, (10, 1e6))
    classes = [node.get("class") for node in ET.fromstring(drawing).iter("polyline")]
    assert classes == ["l0", "l1"]
    assert {"10", "1k", "1M", "ticks"} <= set(words(drawing))
