"""Raw ftrace pages of a capture as a trace.dat file (version 6), which ``trace-cmd report`` reads.

The layout is public: ``man trace-cmd.dat.v6``.  A file has the texts of tracefs that say how records look,
then, aligned to pages, the raw pages of each CPU.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAGIC = b"\x17\x08\x44tracing6\0"
LITTLE_ENDIAN, LONG_BYTES = 0, 8
PAGE_BYTES = 4096
KERNELS_OWN = "ftrace"
"""Group of the events that every kernel has; they stand apart from all others."""
PAUSE_TICKS = 1 << 27


def write_trace_dat(target: Path, trace: Path, pages: Path) -> None:
    """Write ``target`` from the texts in a domain's folder ``trace`` and the raw ``pages`` of one CPU."""
    with target.open("wb") as out:
        out.write(MAGIC + struct.pack("<BBI", LITTLE_ENDIAN, LONG_BYTES, PAGE_BYTES))
        for name in ("header_page", "header_event"):
            out.write(name.encode() + b"\0")
            _sized(out, "<Q", (trace / name).read_bytes())
        groups = {folder.name: sorted(folder.iterdir()) for folder in sorted((trace / "formats").iterdir())}
        _formats(out, groups.pop(KERNELS_OWN))
        out.write(struct.pack("<I", len(groups)))
        for group, files in groups.items():
            out.write(group.encode() + b"\0")
            _formats(out, files)
        _sized(out, "<I", b"")  # kallsyms
        _sized(out, "<I", b"")  # printk_formats
        _sized(out, "<Q", (trace / "saved_cmdlines").read_bytes())
        out.write(struct.pack("<I", 1) + b"options  \0" + struct.pack("<H", 0) + b"flyrecord\0")
        begin = -(-(out.tell() + 16) // PAGE_BYTES) * PAGE_BYTES
        out.write(struct.pack("<QQ", begin, pages.stat().st_size))
        out.seek(begin)
        out.write(pages.read_bytes())


def repeat_pages(pages: Path, target: Path, times: int) -> None:
    """Write the pages of a recording ``times`` times, each time later than before."""
    words = np.fromfile(pages, "<u8").reshape(-1, PAGE_BYTES // 8)
    span = words[-1, 0] - words[0, 0] + np.uint64(PAUSE_TICKS)
    with target.open("wb") as out:
        for _ in range(times):
            out.write(words.tobytes())
            words[:, 0] += span


def _formats(out: BinaryIO, files: list[Path]) -> None:
    out.write(struct.pack("<I", len(files)))
    for path in files:
        _sized(out, "<Q", path.read_bytes())


def _sized(out: BinaryIO, size: str, data: bytes) -> None:
    out.write(struct.pack(size, len(data)) + data)
