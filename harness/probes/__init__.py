"""Probes written in C names, and their compiler to the kernel's ``kprobe_events`` language.

``rows`` is the table; ``expression`` turns ``req->u.rw.id`` into a fetch argument; ``compiler`` puts lines
together.  ``dwarf`` knows a driver: types by itself, code by ``scopes`` (functions, inlined copies, lines),
variables by ``location``.  ``btf`` knows the kernel.
"""
