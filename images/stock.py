"""The distribution's own drivers, with what tells probes where things are in them.

Debian ships no DWARF with its modules.  For each there is a twin: the same source, compiled out of tree
with the kernel's own flags and no others.  Where their code is the same byte for byte, the twin's DWARF is
the stock module's as well.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from blkproof.images.cache import Progress, cache_root, once
from blkproof.images.drivers import Driver, build_drivers
from blkproof.images.modules import Modules
from blkproof.images.recipe import Recipe
from blkproof.images.toolchain import Toolchain
from blkproof.images.twin import build_id, difference

_FACTS = "stock.json"
_VERSION = "1"
"""To be raised when modules are compared in another way."""


def stock_drivers(recipe: Recipe, tree: Path, progress: Progress) -> dict[str, Driver]:
    """Return the kernel package's own drivers by module name.

    ``module`` is the twin, or the stock module itself if the twin differs: then only BTF is left for the
    probes.  ``made_of`` says which, and why.
    """
    plain = recipe.model_copy(update={"driver": recipe.driver.model_copy(update={"flags": ()})})
    twins = build_drivers(plain, tree, progress)

    def make(work: Path) -> None:
        facts = {}
        with tempfile.TemporaryDirectory(prefix="blkproof-tools-") as scratch:
            modules = Modules(tree, Toolchain(tree, recipe.driver.compiler, Path(scratch)))
            for name, twin in twins.items():
                progress(f"comparing the stock {name} with its twin")
                stock, own = modules.read(name), twin.read_bytes()
                (work / f"{name}.ko").write_bytes(stock)
                facts[name] = {
                    "build_id": build_id(stock),
                    "sha256": hashlib.sha256(stock).hexdigest(),
                    "differs": difference(stock, own),
                }
        (work / _FACTS).write_text(json.dumps(facts))

    key = hashlib.sha256(repr((_VERSION, sorted(map(str, twins.values())))).encode()).hexdigest()[:32]
    kept = once(cache_root() / "drivers" / key, progress, make)
    facts = json.loads((kept / _FACTS).read_text())
    drivers = {}
    for name, twin in twins.items():
        if differs := facts[name]["differs"]:
            progress(
                f"stock {name}: probed at function entries only, since a rebuild of it differs: {differs}"
            )
        stock = kept / f"{name}.ko"
        made_of = {"patches": [], "source": None, "left_out": [], "stock": facts[name]}
        drivers[name] = Driver(stock if differs else twin, stock, made_of)
    return drivers
