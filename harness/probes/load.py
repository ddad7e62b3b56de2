"""The probes of one image, compiled once for its kernel and drivers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from blkproof.harness.probes.compiler import KERNEL, Definition
from blkproof.harness.probes.rows import ROWS


def load_probes(btf: Path, modules: Mapping[str, Path], cache: Path) -> tuple[Definition, ...]:
    """Return every probe, compiled with the kernel's BTF and the DWARF of each module.

    The result is kept in ``cache`` under the content of all that shaped it: reading debug information
    takes about a second, and a run is to take three.

    :raise ProbeError: when a row doesn't fit this kernel or driver.
    """
    file = cache / f"{_key(btf, modules)}.json"
    if file.exists():
        return tuple(Definition(**row) for row in json.loads(file.read_text()))
    definitions = _compile(btf, modules)
    cache.mkdir(parents=True, exist_ok=True)
    whole = file.with_suffix(f".{os.getpid()}")
    whole.write_text(json.dumps([asdict(row) for row in definitions]))
    whole.replace(file)
    return definitions


def _compile(btf: Path, modules: Mapping[str, Path]) -> tuple[Definition, ...]:
    # pyelftools is only imported when it is needed
    from blkproof.harness.probes.btf import Btf
    from blkproof.harness.probes.compiler import compile_rows
    from blkproof.harness.probes.dwarf import Dwarf

    return compile_rows(ROWS, {KERNEL: Btf(btf), **{name: Dwarf(path) for name, path in modules.items()}})


def _key(btf: Path, modules: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(repr(ROWS).encode())
    here = Path(__file__).parent
    for path in (btf, *(modules[name] for name in sorted(modules)), *sorted(here.glob("*.py"))):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
