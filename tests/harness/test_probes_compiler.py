"""The table of probes and its compilation to lines for the kernel."""

import re
from dataclasses import replace

import pytest
from blkproof.harness.probes import compiler
from blkproof.harness.probes.compiler import KERNEL, Probe, compile_rows
from blkproof.harness.probes.ctype import Aggregate, Array, Function, Member, Pointer, Scalar
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.load import load_probes
from blkproof.harness.probes.rows import ROWS
from blkproof.harness.probes.site import Site, entry
from blkproof.harness.probes.term import ExpressionError, Term
from blkproof.traces import events
from blkproof.traces.events import EVENTS, EventType, Field

RECORDED_OTHERWISE = {"mark", "message", "xen_map", "xen_unmap"}
"""By trace_marker, by a tracepoint of the kernel and by Xen."""

INT, U8, U32, U64 = (
    Scalar("int", 4, signed=True),
    Scalar("u8", 1, signed=False),
    Scalar("u32", 4, signed=False),
    Scalar("u64", 8, signed=False),
)
CHAR = Scalar("char", 1, signed=True)


def pointer(kind):
    return Pointer(lambda: kind)


def member(name, kind, offset, bits=None):
    return Member(name, lambda: kind, offset, bits)


THING = Aggregate(
    "struct thing",
    2000,
    lambda: (
        member("flag", U32, 37, 1),
        member("wide", U32, 77, 12),
        member("words", Array(lambda: U64, 200), 128),
        member("others", Array(lambda: pointer(THING), 4), 8 * 1700),
        member("text", Array(lambda: CHAR, 16), 8 * 1800),
    ),
)
FUNCTION = Function(
    "touch", (("thing", pointer(THING)), ("n", INT), ("small", U8), ("name", pointer(CHAR))), pointer(THING)
)


class Source:
    """Has one function, `touch`, that is also inlined, as `hidden`, into two others."""

    def sites(self, function, at):
        if at:
            return [Site("touch", "touch+40", {"n": lambda: Term("%bx", INT)})]
        if function == "hidden":
            return [
                Site("hidden", "one+16", {"n": lambda: Term("%ax", INT), "gone": self.gone}),
                Site("hidden", "two+8", {"n": lambda: Term("%sp", INT, place=True, offset=24)}),
            ]
        if function != "touch":
            raise ExpressionError(f"there is no function {function}()")
        return [entry(FUNCTION)]

    def gone(self):
        raise ExpressionError("hidden() was inlined and its parameter gone was optimised away")

    def variable(self, name):  # noqa: ARG002 - no globals here
        return None

    def aggregate(self, name):  # noqa: ARG002 - no casts here
        return None


def lines(rows, forgiving=()):
    return [found.line for found in compile_rows(rows, {"driver": Source()}, forgiving).definitions]


@pytest.fixture
def line(monkeypatch):
    """Compile one field of a made-up event, and return its arguments as the kernel gets them."""

    def compile_it(dtype, expression, *, module="driver", returns=False, when=""):
        kind = EventType("ev", "backend", "", (Field("f", dtype, ""),))
        monkeypatch.setitem(EVENTS, "ev", kind)
        row = Probe("ev", module, "touch", {"f": expression}, returns=returns, when=when)
        (found,) = compile_rows([row], {module: Source()}).definitions
        return found

    return compile_it


def test_every_event_of_a_kernel_has_one_row():
    rows = [row.event for row in ROWS]
    assert sorted(rows) == sorted(EVENTS.keys() - RECORDED_OTHERWISE)


def every(rows):
    """Yield rows, and those that stand in for them."""
    for row in rows:
        yield row
        yield from every(row.otherwise)


EVERY = [*every(ROWS)]


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.event)
def test_a_row_fetches_the_fields_of_its_event_in_their_order(row):
    assert list(row.fields) == [field.name for field in EVENTS[row.event].fields]


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.event)
def test_rows_name_no_register_and_no_offset(row):
    for expression in row.fields.values():
        assert not re.search(r"[%+@]|0x|\[\d+]", expression)


def test_where_a_probe_goes(line):
    assert line("s32", "n").line == "p:blkproof/ev driver:touch f=%si:s32"
    assert line("s32", "n", module=KERNEL).line == "p:blkproof/ev touch f=%si:s32"
    assert line("u64", "$retval", returns=True).line == "r64:blkproof/ev driver:touch f=$retval:u64"
    assert line("s32", "n", when="f <= 21").when == "f <= 21"


@pytest.mark.parametrize(
    ("dtype", "expression", "arguments"),
    [
        ("u64", "thing", "f=%di:u64"),
        ("u8", "thing->flag", "f=+4(%di):b1@5/8"),
        ("u32", "thing->wide", "f=+9(%di):b12@5/32"),
        ("u32", "small", "f=%dx:u8"),
        ("s32", "small", "f=%dx:u8"),
        ("u64[11]", "thing->words[:11]", "f=+16(%di):u64[11]"),
        ("u64[1]", "thing->words[:1]", "f=+16(%di):u64[1]"),
        (
            "u64[130]",
            "thing->words[:130]",
            "f0=+16(%di):u64[64] f1=+528(%di):u64[64] f2=+1040(%di):u64[2]",
        ),
        (
            "u64[2]",
            "thing->others[:2]->words[1]",
            "f0=+24(+1700(%di)):u64 f1=+24(+1708(%di)):u64",
        ),
        ("u8[2]", "thing->others[:2]->flag", "f0=+4(+1700(%di)):b1@5/8 f1=+4(+1708(%di)):b1@5/8"),
        ("str", "name", "f=+0(%cx):string"),
        ("str", "thing->text", "f=+1800(%di):string"),
    ],
)
def test_how_a_field_is_fetched(line, dtype, expression, arguments):
    assert line(dtype, expression).line == f"p:blkproof/ev driver:touch {arguments}"


@pytest.mark.parametrize(
    ("dtype", "expression", "says"),
    [
        ("u32", "thing", r"f = thing: pointer does not fit the schema's u32"),
        ("u32", "n", "int does not fit the schema's u32; cast it"),
        ("s32", "(u32)n", "u32 does not fit"),
        ("u64[4]", "thing->words[:3]", "gives 3 values where the schema has u64.4"),
        ("u64", "thing->words", "is no number"),
        ("u64", "*thing", "struct thing is no number"),
        ("str", "n", "int is no string"),
        ("str", "thing", "is no string"),
        ("float", "n", "dtype 'float' can't be recorded"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(line, dtype, expression, says):
    with pytest.raises(ProbeError, match=rf"probe ev \(driver:touch\).*{says}"):
        line(dtype, expression)


def test_of_alternatives_the_first_that_fits_is_taken(line):
    assert line("s32", "gone | n | small").line == "p:blkproof/ev driver:touch f=%si:s32"
    with pytest.raises(
        ProbeError,
        match=r"f = gone: .* no parameter or variable 'gone'.*; or f = thing->lost: .*no member 'lost'",
    ):
        line("s32", "gone | thing->lost")


def test_a_function_may_have_had_other_names():
    rows = [Probe("be_map_ret", "driver", "renamed | touch", {"rc": "n"})]
    assert lines(rows) == ["p:blkproof/be_map_ret driver:touch rc=%si:s32"]
    rows = [Probe("be_map_ret", "driver", "renamed | gone", {"rc": "n"})]
    with pytest.raises(ProbeError, match=r"no function renamed\(\); nor: there is no function gone"):
        compile_rows(rows, {"driver": Source()})


def test_an_inlined_function_is_probed_in_each_copy():
    row = Probe("be_map_ret", "driver", "hidden", {"rc": "n"})
    assert lines([row]) == [
        "p:blkproof/be_map_ret driver:one+16 rc=%ax:s32",
        "p:blkproof/be_map_ret driver:two+8 rc=+24(%sp):s32",
    ]


def test_a_line_of_a_function_can_be_probed():
    row = Probe("be_map_ret", "driver", "touch", {"rc": "n"}, at="words of it")
    assert lines([row]) == ["p:blkproof/be_map_ret driver:touch+40 rc=%bx:s32"]


def test_a_function_that_was_inlined_has_no_return_but_another_row_may_do():
    row = Probe("be_map_ret", "driver", "hidden", {"rc": "$retval"}, returns=True)
    with pytest.raises(ProbeError, match=r"\(driver:one\+16\): hidden\(\) was inlined, so it has no return"):
        lines([row])
    after = Probe("be_map_ret", "driver", "touch", {"rc": "n"}, at="words")
    assert lines([replace(row, otherwise=(after,))]) == ["p:blkproof/be_map_ret driver:touch+40 rc=%bx:s32"]
    lost = Probe("be_map_ret", "driver", "lost", {"rc": "n"})
    with pytest.raises(ProbeError, match=r"it has no return; otherwise probe be_map_ret: .* function lost"):
        lines([replace(row, otherwise=(after, lost))])


def test_what_has_to_be_added_is_recorded_in_all_places(monkeypatch):
    def sites(_source, _function, _at):
        return [
            Site("hidden", "one", {"t": lambda: Term("%ax", pointer(THING), offset=-32)}),
            Site("hidden", "two", {"t": lambda: Term("%bx", pointer(THING))}),
        ]

    monkeypatch.setattr(Source, "sites", sites)
    row = Probe("be_get_ret", "driver", "hidden", {"pgnt": "t", "gref": "t->wide"})
    assert lines([row]) == [
        "p:blkproof/be_get_ret driver:one pgnt=%ax:u64 gref=-23(%ax):b12@5/32 pgnt_plus=\\-32:s64",
        "p:blkproof/be_get_ret driver:two pgnt=%bx:u64 gref=+9(%bx):b12@5/32 pgnt_plus=\\0:s64",
    ]


def test_a_callers_variable_stands_in_for_a_parameter_that_is_gone():
    row = Probe("be_map_ret", "driver", "hidden", {"rc": "gone"}, callers={"gone": "n"})
    assert len(lines([row])) == 2
    with pytest.raises(
        ProbeError, match=r"gone was optimised away; otherwise .* rc = lost: hidden\(\) has no"
    ):
        lines([replace(row, callers={"gone": "lost"})])


def test_a_definition_says_which_row_it_comes_from():
    row = Probe("be_map_ret", "driver", "touch", {"rc": "n"}, at="words")
    (found,) = compile_rows([row], {"driver": Source()}).definitions
    assert found.written("rc=%bx:s32") == "rc = n in touch(), lines with 'words'"


def test_places_of_one_event_that_give_different_types_are_refused(monkeypatch):
    def sites(_source, _function, _at):
        return [
            Site("hidden", "one", {"n": lambda: Term("%ax", INT)}),
            Site("hidden", "two", {"n": lambda: Term("%ax", U8)}),
        ]

    monkeypatch.setattr(Source, "sites", sites)
    with pytest.raises(ProbeError, match=r"do not give the same types: .*:s32 / .*:u8"):
        lines([Probe("be_map_ret", "driver", "hidden", {"rc": "n"})])


def test_a_row_that_does_not_fit_a_driver_of_another_is_missing_with_the_reason():
    rows = [
        Probe("be_map_ret", "driver", "touch", {"rc": "n"}),
        Probe("be_add_ret", "driver", "hidden", {"rc": "gone"}),
    ]
    with pytest.raises(ProbeError, match="parameter gone was optimised away"):
        lines(rows)
    found = compile_rows(rows, {"driver": Source()}, forgiving={"driver"})
    assert [each.event for each in found.definitions] == ["be_map_ret"]
    assert found.missing == {
        "be_add_ret": "probe be_add_ret (driver:one+16), rc = gone: "
        "hidden() was inlined and its parameter gone was optimised away"
    }


def test_a_row_for_no_event_or_field_is_refused():
    for event, field in (("be_map_ret", "status"), ("be_nothing", "x")):
        with pytest.raises(ProbeError, match=f"no field '{field}' of an event '{event}'"):
            compile_rows([Probe(event, "d", "touch", {field: "n"})], {"d": Source()})


def test_a_function_or_module_that_is_not_there_is_refused():
    with pytest.raises(ProbeError, match=r"driver: there is no function gone\(\)"):
        compile_rows([Probe("be_map_ret", "driver", "gone", {"rc": "n"})], {"driver": Source()})
    with pytest.raises(ProbeError, match="no types of other, only of driver"):
        compile_rows([Probe("be_map_ret", "other", "touch", {"rc": "n"})], {"driver": Source()})


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_ARGUMENTS", 2, "3 arguments, the kernel takes 2"),
        ("MAX_EVENT_BYTES", 1000, "1040 bytes, the kernel takes 1000"),
        ("MAX_LINE_CHARS", 50, "characters in a line"),
        ("MAX_ARGUMENT_CHARS", 10, "characters in 'f1=.528"),
    ],
)
def test_limits_of_the_kernel(line, monkeypatch, limit, value, says):
    monkeypatch.setattr(compiler, limit, value)
    with pytest.raises(ProbeError, match=says):
        line("u64[130]", "thing->words[:130]")


@pytest.mark.parametrize("held", [events.SEGMENTS_IN, events.UNMAPS_IN], ids=["segments", "unmaps"])
def test_what_several_events_hold_is_held_once(held):
    assert sorted(number for numbers in held.values() for number in numbers) == list(
        range(max(numbers.stop for numbers in held.values()))
    )
    assert max(numbers.stop for numbers in held.values()) >= events.SEGMENTS_SEEN


def test_a_probe_sleeps_until_another_event_wakes_it(monkeypatch):
    for name in ("ev", "more"):
        monkeypatch.setitem(EVENTS, name, EventType(name, "backend", "", (Field("n", "s32", ""),)))
    rows = [
        Probe("ev", "driver", "touch", {"n": "n"}),
        Probe("more", "driver", "touch", {"n": "n"}, when="n > 3", asleep_until={"ev": "n > 3"}),
    ]
    base, more = compile_rows(rows, {"driver": Source()}).definitions
    assert (base.when, base.wake) == ("", "")
    assert (more.when, more.wake) == ("n > 3", "ev enable_event:blkproof:more if n > 3\n")


def test_what_wakes_a_row_is_a_row_of_the_same_side():
    origin = {row.event: EVENTS[row.event].origin for row in ROWS}
    for row in ROWS:
        for waker in row.asleep_until or ():
            assert origin[waker] == origin[row.event]


def test_compiled_probes_are_kept_by_content(tmp_path, monkeypatch):
    made = []

    def compile_once(btf, modules, forgiving):  # noqa: ARG001 - the real one's signature
        made.append(btf.read_bytes())
        return compiler.Probes((compiler.Definition("ev", "m", "p:x", "n > 1"),), {"other": "why"})

    monkeypatch.setattr("blkproof.harness.probes.load._compile", compile_once)
    btf, ko = tmp_path / "btf", tmp_path / "ko"
    btf.write_bytes(b"1")
    ko.write_bytes(b"a")
    first = load_probes(btf, {"m": ko}, tmp_path / "cache")
    assert load_probes(btf, {"m": ko}, tmp_path / "cache") == first
    assert made == [b"1"]
    ko.write_bytes(b"b")
    load_probes(btf, {"m": ko}, tmp_path / "cache")
    assert len(made) == 2
    load_probes(btf, {"m": ko}, tmp_path / "cache", {"m"})
    assert len(made) == 3
    text = tmp_path / "driver-source" / "m.c"
    text.parent.mkdir()
    text.write_text("int x;")
    load_probes(btf, {"m": ko}, tmp_path / "cache", {"m"})
    assert len(made) == 4
