"""From rows to the lines that arm them: ``kprobe_events`` definitions and event filters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from blkproof.harness.probes.ctype import Array, Pointer, Scalar
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.expression import evaluate
from blkproof.harness.probes.site import Site, TypeSource
from blkproof.harness.probes.term import ExpressionError, Term, Terms
from blkproof.traces.events import EVENTS
from blkproof.traces.ftrace_layout import PLUS

GROUP: Final = "blkproof"
"""Directory of our events in tracefs."""
KERNEL: Final = "vmlinux"
"""Name of the kernel itself, beside those of modules."""

# Limits of the kernel (v6.1, kernel/trace/trace_probe.h and trace.c).
MAX_ARGUMENTS: Final = 128
MAX_EVENT_BYTES: Final = 3072
MAX_ELEMENTS: Final = 64
MAX_ARGUMENT_CHARS: Final = 63
MAX_LINE_CHARS: Final = 4094

_RETURNS_AT_ONCE: Final = 64
"""Calls of one function in flight before a return probe misses one; the kernel's default may be 1."""
_POINTER: Final = Scalar("pointer", 8, signed=False)
_DTYPE: Final = re.compile(r"([us])(\d+)(?:\[(\d+)])?")


@dataclass(frozen=True, slots=True)
class Probe:
    """One row: where in the kernel an event of the schema is seen, and how to fetch its fields.

    ``function`` is probed where it's entered, in each place that it was inlined into, or with ``at`` on the
    lines of its source that have these words.  ``fields`` are C expressions over what is visible there
    (``$retval`` with ``returns``) and over global variables, in the order of the schema.  ``when`` is a
    filter over the fields, in ftrace's language.  Where kernels differ, a function or an expression may be
    several with ``|`` between: the first that fits is taken.

    Where compilers differ, ``callers`` gives expressions to begin with in place of parameters that were
    optimised away, and ``otherwise`` are the rows that together stand in for this one when it doesn't fit
    even so, for example since the function whose result it wants was inlined.

    ``asleep_until`` are events, each with a filter over its fields: the probe fetches nothing before an event
    that fits.  So what only large requests need costs nothing in a run without any.
    """

    event: str
    module: str
    function: str
    fields: Mapping[str, str]
    returns: bool = False
    when: str = ""
    at: str = ""
    callers: Mapping[str, str] = field(default_factory=dict)
    otherwise: tuple[Probe, ...] = ()
    asleep_until: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """What to write to tracefs to arm one probe; an event may have several, one for each place.

    ``wake`` are lines of other events and their triggers that wake the probe, if it sleeps.  ``row`` says
    where the table has it, ``fields`` the expressions there.
    """

    event: str
    module: str
    line: str
    when: str = ""
    wake: str = ""
    row: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    def written(self, argument: str) -> str:
        """Return how the row has an argument of the line, which may be a numbered part of a field."""
        name = argument.partition("=")[0]
        field = name if name in self.fields else name.rstrip("0123456789")
        return f"{field} = {self.fields[field]} in {self.row}" if field in self.fields else self.row


@dataclass(frozen=True, slots=True)
class Probes:
    """What can be armed, and for each event that can't be seen the reason."""

    definitions: tuple[Definition, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Argument:
    text: str
    size: int

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return self.text.partition("=")[0]

    @property
    def shape(self) -> str:
        """Name and type, which have to be the same in all places of an event."""
        return f"{self.name}:{self.text.rpartition(':')[2]}"


def compile_rows(
    rows: Iterable[Probe], sources: Mapping[str, TypeSource], forgiving: Collection[str] = ()
) -> Probes:
    """Compile rows with the debug information of each module.

    A row that doesn't fit a module of ``forgiving`` is missing; any other has to fit.

    :raise ProbeError: when an expression, a type or a limit of the kernel is at odds with a row.
    """
    definitions: list[Definition] = []
    missing: dict[str, str] = {}
    for row in rows:
        try:
            definitions += _definitions(row, _compile(row, sources))
        except ProbeError as wrong:
            if row.module not in forgiving:
                raise
            missing[row.event] = str(wrong)
    return Probes(tuple(definitions), missing)


@dataclass(frozen=True, slots=True)
class _Place:
    """One place of an event: what is fetched there, and the row that says so."""

    row: Probe
    arguments: tuple[_Argument, ...]


_Heads = dict[str, _Place]
"""Places of an event by the beginning of their definitions."""


def _compile(row: Probe, sources: Mapping[str, TypeSource]) -> _Heads:
    """Compile a row, or what stands in for it."""
    try:
        return _compile_one(row, sources)
    except ProbeError as wrong:
        instead = (_with_callers(row),) if row.callers else row.otherwise
        if not instead:
            raise
        try:
            parts = [_compile(each, sources) for each in instead]
        except ProbeError as also:
            raise ProbeError(f"{wrong}; otherwise {also}") from None
        return {head: place for part in parts for head, place in part.items()}


def _with_callers(row: Probe) -> Probe:
    """Return a row whose expressions begin with what its callers have."""
    fields = dict(row.fields)
    for name, instead in row.callers.items():
        begins = re.compile(rf"^{name}\b")
        fields = {key: begins.sub(instead, text) for key, text in fields.items()}
    return replace(row, fields=fields, callers={})


def _compile_one(row: Probe, sources: Mapping[str, TypeSource]) -> _Heads:
    if row.module not in sources:
        raise ProbeError(f"probe {row.event}: no types of {row.module}, only of {', '.join(sources)}")
    source = sources[row.module]
    found: _Heads = {}
    for site in _sites(row, source):
        place = site.place if row.module == KERNEL else f"{row.module}:{site.place}"
        if row.returns and site.returns is None:
            raise ProbeError(
                f"probe {row.event} ({place}): {site.function}() was inlined, so it has no return"
            )
        arguments = tuple(each for name in row.fields for each in _field(row, place, name, site, source))
        kind = f"r{_RETURNS_AT_ONCE}" if row.returns else "p"
        found[f"{kind}:{GROUP}/{row.event} {place}"] = _Place(row, arguments)
    return found


def _definitions(row: Probe, heads: _Heads) -> list[Definition]:
    """Put lines together; the kernel makes one event of several only if they give the same types."""
    made, shapes = [], set()
    for head, place in heads.items():
        arguments = _with_sums(place, heads)
        line = " ".join([head, *(argument.text for argument in arguments)])
        _check_limits(row, arguments, line)
        shapes.add(tuple(argument.shape for argument in arguments))
        words = f", lines with {place.row.at!r}" if place.row.at else ""
        source = f"{place.row.function}(){words}"
        made.append(
            Definition(row.event, row.module, line, row.when, _wake(row), source, dict(place.row.fields))
        )
    if len(shapes) > 1:
        lines = " / ".join(each.line for each in made)
        raise ProbeError(f"probe {row.event}: its places do not give the same types: {lines}")
    return made


def _with_sums(place: _Place, heads: _Heads) -> tuple[_Argument, ...]:
    """Return a place's arguments, and at their end what is to be added to those that any place adds to."""
    every = (argument.name for each in heads.values() for argument in each.arguments)
    own = {argument.name: argument for argument in place.arguments}
    sums = [
        own.pop(name, _plus(name.removesuffix(PLUS), 0)) for name in sorted(set(every)) if name.endswith(PLUS)
    ]
    return (*own.values(), *sums)


def _wake(row: Probe) -> str:
    """Return the events that wake a probe, each with its trigger."""
    return "".join(
        f"{event} enable_event:{GROUP}:{row.event} if {condition}\n"
        for event, condition in (row.asleep_until or {}).items()
    )


def _sites(row: Probe, source: TypeSource) -> Sequence[Site]:
    faults = []
    for name in _alternatives(row.function):
        try:
            return source.sites(name, row.at)
        except ExpressionError as wrong:
            faults.append(str(wrong))
    raise ProbeError(f"probe {row.event}: {row.module}: {'; nor: '.join(faults)}")


def _alternatives(text: str) -> list[str]:
    return [each.strip() for each in text.split("|")]


def _field(row: Probe, place: str, field: str, site: Site, source: TypeSource) -> list[_Argument]:
    faults = []
    for text in _alternatives(row.fields[field]):
        try:
            dtype = _dtype(row.event, field)
            terms = evaluate(text, site, source, returns=row.returns)
            return list(_string(field, terms) if dtype == "str" else _numbers(field, dtype, terms))
        except ExpressionError as wrong:
            faults.append(f"{field} = {text}: {wrong}")
    raise ProbeError(f"probe {row.event} ({place}), {'; or '.join(faults)}")


def _dtype(event: str, field: str) -> str:
    kind = EVENTS.get(event)
    dtype = None if kind is None else next((f.dtype for f in kind.fields if f.name == field), None)
    if dtype is None:
        raise ExpressionError(f"the schema has no field {field!r} of an event {event!r}")
    return dtype


def _string(field: str, terms: Terms) -> Iterator[_Argument]:
    """Yield the argument of a C string: a pointer to characters, or an array of them."""
    for term in terms:
        first = term.target() if isinstance(term.type, Pointer | Array) else term
        if len(terms) > 1 or not first.place or first.type.size != 1:
            raise ExpressionError(f"{term.type.name} is no string")
        yield _Argument(f"{field}={first.render()}:string", 4)


def _numbers(field: str, dtype: str, terms: Terms) -> Iterator[_Argument]:
    match = _DTYPE.fullmatch(dtype)
    if match is None:
        raise ExpressionError(f"the schema's dtype {dtype!r} can't be recorded")
    if len(terms) != int(match[3] or 1):
        raise ExpressionError(f"gives {len(terms)} values where the schema has {dtype}")
    for term in terms:
        _check_fits(term, match[1] == "s", int(match[2]) // 8, dtype)
    if len(terms) == 1 and match[3] is None:
        value, plus = terms[0].split()
        yield _Argument(f"{field}={value.render()}:{_kind(value)}", _size(value))
        if plus:
            yield _plus(field, plus)
    elif _contiguous(terms):
        chunks = [terms[i : i + MAX_ELEMENTS] for i in range(0, len(terms), MAX_ELEMENTS)]
        for number, chunk in enumerate(chunks):
            name = field if len(chunks) == 1 else f"{field}{number}"
            text = f"{name}={chunk[0].render()}:{_kind(chunk[0])}[{len(chunk)}]"
            yield _Argument(text, _size(chunk[0]) * len(chunk))
    else:
        for number, term in enumerate(terms):
            yield _Argument(f"{field}{number}={term.render()}:{_kind(term)}", _size(term))


def _plus(field: str, number: int) -> _Argument:
    """Return the argument for what the reader is to add to a field, since a probe can't add."""
    return _Argument(f"{field}{PLUS}=\\{number}:s64", 8)


def _scalar(term: Term) -> Scalar:
    if isinstance(term.type, Pointer):
        return _POINTER
    if not isinstance(term.type, Scalar):
        raise ExpressionError(f"{term.type.name} is no number")
    return term.type


def _size(term: Term) -> int:
    """Bytes that the kernel fetches: of a bitfield, the smallest word around it."""
    if term.bits is None:
        return _scalar(term).size
    return next(size for size in (1, 2, 4, 8) if sum(term.bits) <= 8 * size)


def _kind(term: Term) -> str:
    """Return the fetch type, in ftrace's words."""
    if term.bits is not None:
        shift, width = term.bits
        return f"b{width}@{shift}/{8 * _size(term)}"
    return f"{'s' if _scalar(term).signed else 'u'}{8 * _size(term)}"


def _check_fits(term: Term, signed: bool, size: int, dtype: str) -> None:
    """Let a narrower number be widened when it's read; anything else would change the value."""
    scalar = _scalar(term)
    same = scalar.signed == signed and _size(term) <= size
    widened = signed and not scalar.signed and _size(term) < size
    if not same and not widened:
        raise ExpressionError(f"{scalar.name} does not fit the schema's {dtype}; cast it if it must")


def _contiguous(terms: Terms) -> bool:
    first = terms[0]
    return first.place and all(
        term.place
        and term.bits is None
        and term.fetch == first.fetch
        and term.offset == first.offset + number * _size(first)
        for number, term in enumerate(terms)
    )


def _check_limits(row: Probe, arguments: Sequence[_Argument], line: str) -> None:
    longest = max((a.text for a in arguments), key=len, default="")
    for what, found, limit in (
        ("arguments", len(arguments), MAX_ARGUMENTS),
        ("bytes", sum(a.size for a in arguments), MAX_EVENT_BYTES),
        ("characters in a line", len(line), MAX_LINE_CHARS),
        (f"characters in {longest!r}", len(longest.partition("=")[2]), MAX_ARGUMENT_CHARS),
    ):
        if found > limit:
            raise ProbeError(f"probe {row.event}: {found} {what}, the kernel takes {limit}")
