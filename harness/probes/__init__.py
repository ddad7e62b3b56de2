"""Probes written in C names, and their compiler to the kernel's ``kprobe_events`` language.

``rows`` is the table; ``expression`` turns ``req->u.rw.id`` into a fetch argument with the types that
``dwarf`` reads from a driver and ``btf`` from the kernel; ``compiler`` puts the lines together.
"""
