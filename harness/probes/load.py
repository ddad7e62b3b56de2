"""The probes of one image, compiled once for its kernel and drivers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from blkproof.harness.probes.compiler import KERNEL, Definition, Probes
from blkproof.harness.probes.rows import ROWS
from blkproof.harness.probes.site import TypeSource
from blkproof.images.drivers import sources_of


def load_probes(
    btf: Path, modules: Mapping[str, Path], cache: Path, forgiving: Collection[str] = ()
) -> Probes:
    """Return every probe, compiled with the kernel's BTF and each module's DWARF and source, or else its BTF.

    The result is kept in ``cache`` under the content of all that shaped it: reading debug information
    takes about a second, and a run is to take three.

    :raise ProbeError: when a row doesn't fit this kernel, or a driver that is not among ``forgiving``.
    """
    file = cache / f"{_key(btf, modules, forgiving)}.json"
    if file.exists():
        kept = json.loads(file.read_text())
        return Probes(tuple(Definition(**row) for row in kept["definitions"]), kept["missing"])
    probes = _compile(btf, modules, forgiving)
    cache.mkdir(parents=True, exist_ok=True)
    whole = file.with_suffix(f".{os.getpid()}")
    whole.write_text(json.dumps(asdict(probes)))
    whole.replace(file)
    return probes


def _compile(btf: Path, modules: Mapping[str, Path], forgiving: Collection[str]) -> Probes:
    # pyelftools is only imported when it is needed
    from blkproof.harness.probes.btf import Btf
    from blkproof.harness.probes.compiler import compile_rows
    from blkproof.harness.probes.dwarf import Dwarf
    from blkproof.images.elf import elf_of

    kernel = Btf(btf)
    drivers: dict[str, TypeSource] = {
        name: Dwarf(path, sources_of(path))
        if elf_of(path.read_bytes()).has_dwarf_info()
        else Btf.of_module(path, kernel)
        for name, path in modules.items()
    }
    return compile_rows(ROWS, {KERNEL: kernel, **drivers}, forgiving)


def _key(btf: Path, modules: Mapping[str, Path], forgiving: Collection[str]) -> str:
    digest = hashlib.sha256(repr((ROWS, sorted(forgiving))).encode())
    here = Path(__file__).parent
    texts = {text for path in modules.values() for text in sources_of(path).rglob("*.[ch]")}
    for path in (
        btf,
        *(modules[name] for name in sorted(modules)),
        *sorted(texts),
        *sorted(here.glob("*.py")),
    ):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
