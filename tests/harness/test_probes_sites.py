"""Where functions, inlined copies and lines can be probed, and what is had there: gcc's objects/driver.c."""

import gzip
from pathlib import Path

import pytest
from blkproof.harness.probes.dwarf import Dwarf
from blkproof.harness.probes.term import ExpressionError

OBJECTS = Path(__file__).parent / "objects"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "driver.ko"
    path.write_bytes(gzip.decompress((OBJECTS / "driver.o.gz").read_bytes()))
    return Dwarf(path, OBJECTS)


def places(driver, function, at=""):
    return [site.place for site in driver.sites(function, at)]


def where(site):
    """Render what is had at a place: addresses of places, values of others, None where there is nothing."""
    found = {}
    for name, locate in site.variables.items():
        try:
            term = locate()
        except ExpressionError:
            found[name] = None
        else:
            found[name] = f"{term.offset:+d}({term.fetch})" if term.place else term.fetch
    return found


def test_a_function_of_its_own_is_probed_at_its_entry(driver):
    (site,) = driver.sites("find", "")
    assert site.place == "find"
    assert where(site) == {"ring": "%di", "gref": "%si", "ro": "%dx"}
    assert site.returns.target().name == "struct request"


def test_inlined_copies_are_found_in_whichever_section(driver):
    one, two = driver.sites("pick", "")
    assert (one.place, two.place) == ("first+49", "second")
    assert one.returns is two.returns is None
    caller = {"first::ring": "%bx", "first::gref": "%si", "first::one": None}
    caller |= {"first::local": "+16(%sp)", "first::count": "+12(%sp)"}
    assert where(one) == {"ring": "%bx", "gref": "%si", "unused": "\\5", "picked": None, **caller}
    assert where(two) == {
        "ring": "%di",
        "gref": "\\7",
        "unused": "\\0",
        "picked": None,
        "second::ring": "%di",
    }


def test_lines_are_found_by_the_words_of_their_source(driver):
    assert places(driver, "first", "last ring") == ["first+78"]
    assert places(driver, "first", "one operation") == ["first+90"]
    assert places(driver, "pick", "picked") == ["first+49", "second"]


def test_a_line_without_a_mark_begins_with_its_first_instruction(driver):
    assert places(driver, "pick", "sink") == ["first+59", "second+4"]


def test_locals_are_where_they_are_at_that_line(driver):
    before, after = driver.sites("first", "use")[0], driver.sites("first", "one operation")[0]
    assert where(before) == {
        "ring": "%bx",
        "gref": "%si",
        "local": "+16(%sp)",
        "count": "+12(%sp)",
        "one": "%bp",
    }
    assert where(after)["gref"] is None
    with pytest.raises(ExpressionError, match=r"first\(\)'s parameter gref was passed in and overwritten"):
        after.variable("gref")


def test_a_variable_that_was_optimised_away_is_named(driver):
    with pytest.raises(ExpressionError, match=r"pick\(\) was inlined and its variable picked was optimised"):
        driver.sites("pick", "")[0].variable("picked")
    assert driver.sites("pick", "")[0].variable("nothing") is None


@pytest.mark.parametrize(
    ("function", "at", "says"),
    [
        ("absent", "", r"no function absent\(\) to be probed"),
        ("first", "nowhere", "no line of it has 'nowhere' in driver.c"),
        ("first", "no word", "no line of it has 'no word'"),
        ("pick", "no", "no line of it has 'no'"),  # only a comment does
        ("pick", "return", r"nothing is left of the lines of pick\(\) with 'return'"),
        ("second", "last extra", "no line of it has"),
        ("entry", "return else", "no line of it has"),
    ],
)
def test_a_place_that_is_not_there_is_refused(driver, function, at, says):
    with pytest.raises(ExpressionError, match=says):
        driver.sites(function, at)


def test_lines_need_the_source(tmp_path):
    path = tmp_path / "driver.ko"
    path.write_bytes(gzip.decompress((OBJECTS / "driver.o.gz").read_bytes()))
    with pytest.raises(ExpressionError, match=r"driver.c is not below .*, so its lines can't be found"):
        Dwarf(path, tmp_path).sites("first", "last")


def test_global_variables_of_the_module_and_of_the_kernel(driver):
    assert driver.variable("last").render() == "@last"
    assert driver.variable("last").type.target().name == "struct ring"
    assert driver.variable("elsewhere").render() == "@elsewhere"
    assert driver.variable("elsewhere").type.size == 4
    assert driver.variable("limit") is None  # gcc made a number of it
    assert driver.variable("absent") is None
