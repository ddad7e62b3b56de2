"""An encoder of raw ftrace pages and of tracefs texts that shares nothing with the decoder.

Written from the kernel's description of struct buffer_data_page and ring_buffer_event.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PAGE = 4096
ROOM = PAGE - 16

HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    f"\tfield: char data;\toffset:16;\tsize:{ROOM};\tsigned:1;\n"
)
TRACE_CLOCK = "local global counter uptime perf mono mono_raw boot tai [x86-tsc]\n"
_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q"}
_COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)


@dataclass
class Probe:
    """A kprobe event: ``args`` are (name, type) with types ``u32``, ``u64[11]`` and ``string``."""

    name: str
    number: int
    args: Sequence[tuple[str, str]]
    group: str = "blkproof"
    lengths: bool = False  # Linux 6.1 writes "u64 ops[]", later ones "u64 ops[44]"

    def format(self) -> str:
        lines = ["\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"]
        offset = 16
        for name, kind in self.args:
            base, _, count = kind.rstrip("]").partition("[")
            if base == "string":
                shown, size, signed = f"__data_loc char[] {name}", 4, 1
            else:
                size = struct.calcsize("<" + _CODES[base]) * int(count or 1)
                array = f"[{count if self.lengths else ''}]" if count else ""
                shown, signed = f"{base} {name}{array}", int(base[0] == "s")
            lines.append(f"\tfield:{shown};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
            offset += size
        body = "".join(lines)
        head = f"name: {self.name}\nID: {self.number}\nformat:\n"
        return f'{head}{_COMMON}{body}\nprint fmt: "(%lx)", REC->__probe_ip\n'

    def encode(self, values: Mapping[str, Any], pid: int = 1) -> bytes:
        fixed = 16 + sum(self._size(kind) for _, kind in self.args)
        head, tail = struct.pack("<HBBiQ", self.number, 0, 0, pid, 0xFFFFFFFF81000000), b""
        for name, kind in self.args:
            base, _, count = kind.rstrip("]").partition("[")
            value = values[name]
            if base == "string":
                text = value if isinstance(value, bytes) else value.encode() + b"\0"
                head += struct.pack("<I", len(text) << 16 | fixed + len(tail))
                tail += text
            elif count:
                head += struct.pack(f"<{count}{_CODES[base]}", *value)
            else:
                head += struct.pack("<" + _CODES[base], value)
        return head + tail

    @staticmethod
    def _size(kind: str) -> int:
        base, _, count = kind.rstrip("]").partition("[")
        return 4 if base == "string" else struct.calcsize("<" + _CODES[base]) * int(count or 1)


def mark(text: str, pid: int = 1) -> bytes:
    """A record of trace_marker."""
    return struct.pack("<HBBiQ", 5, 0, 0, pid, 0xFFFFFFFF81000000) + text.encode() + b"\n\0"


@dataclass
class Ring:
    """The buffer of one CPU: ``write`` records, then take ``data``."""

    pages: list[bytes] = field(default_factory=list)
    body: bytes = b""
    first: int | None = None
    now: int = 0
    flags: int = 0
    stored: int | None = None

    def write(self, tsc: int, record: bytes, *, absolute: bool = False, discard: bool = False) -> None:
        record += b"\0" * (-len(record) % 4)
        event = self._event(record)
        if len(self.body) + 8 + len(event) > ROOM - 8:
            self.flush()
        if self.first is None:
            self.first = self.now = tsc
        delta = tsc - self.now
        moved = absolute or delta > 1  # the kernel gives a discarded event a delta of at least 1
        if absolute:
            self.body += struct.pack("<II", 31 | (tsc & 0x7FFFFFF) << 5, tsc >> 27 & 0xFFFFFFFF)
            delta = 0
        elif delta >= 1 << 27:
            self.body += struct.pack("<II", 30 | (delta & 0x7FFFFFF) << 5, delta >> 27)
            delta = 0
        if discard:
            event = struct.pack("<II", 29, len(event) - 4) + event[8:]
            delta = delta or 1
        word = struct.unpack("<I", event[:4])[0] | delta << 5
        self.body += struct.pack("<I", word) + event[4:]
        if moved or not discard:
            self.now = tsc

    def lose(self, count: int | None = None) -> None:
        """The next page says that events before it were lost."""
        self.flush()
        self.flags = 1 << 31 | (0 if count is None else 1 << 30)
        self.stored = count

    def pad(self) -> None:
        """Leave the rest of the page empty, as the kernel does before a page is full."""
        self.body += struct.pack("<I", 29) + b"\0" * (ROOM - 8 - 4 - len(self.body))
        self.flush()

    def flush(self) -> None:
        if self.first is None:
            return
        page = struct.pack("<QQ", self.first, len(self.body) | self.flags) + self.body
        if self.stored is not None:
            page += struct.pack("<Q", self.stored)
        self.pages.append(page.ljust(PAGE, b"\0"))
        self.body, self.first, self.flags, self.stored = b"", None, 0, None

    def data(self) -> bytes:
        self.flush()
        return b"".join(self.pages)

    @staticmethod
    def _event(record: bytes) -> bytes:
        if len(record) <= 28 * 4:
            return struct.pack("<I", len(record) // 4) + record
        return struct.pack("<II", 0, len(record) + 4) + record


def stats(entries: int = 0, overrun: int = 0, dropped: int = 0, read: int = 0) -> str:
    return (
        f"entries: {entries}\noverrun: {overrun}\ncommit overrun: 0\nbytes: 0\noldest event ts: 0\n"
        f"now ts: 0\ndropped events: {dropped}\nread events: {read}\n"
    )
