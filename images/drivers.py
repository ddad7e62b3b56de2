"""The drivers under test, rebuilt from the suite's kernel source or the user's own, with patches if asked."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blkproof.images.cache import Progress, cache_root, once
from blkproof.images.errors import DriverError
from blkproof.images.patches import Change, Patch
from blkproof.images.recipe import Recipe
from blkproof.images.source import Source
from blkproof.images.toolchain import Toolchain, cores, only

_BLOCK = Path("drivers/block")
_MODULES = {
    "xen_blkback": _BLOCK / "xen-blkback/xen-blkback.ko",
    "xen_blkfront": _BLOCK / "xen-blkfront.ko",
}
_OWN = {"xen_blkback": "drivers/block/xen-blkback/", "xen_blkfront": "drivers/block/xen-blkfront"}
"""How the paths of a driver's own files begin."""
_KBUILD = {"xen_blkback": "obj-m += xen-blkback/\n", "xen_blkfront": "obj-m += xen-blkfront.o\n"}
_KERNELS_PROGRAMS = ("scripts", "tools")
_LEFT_OUT = ("Makefile", "vmlinux")
"""Of the headers: a Makefile that is made anew, and the types that only BTF of a module would need."""
_SOURCES = "driver-source"
_VERSION = b"4"
"""To be raised when a change below gives other modules from the same sources."""
_WARNINGS = "warnings.txt"
_COMPLAINT = re.compile(r"^(drivers/block/[^\s:]+):(\d+):(?:\d+:)? (?:fatal )?error: ", re.MULTILINE)


@dataclass(frozen=True)
class Variant:
    """A driver that is to take the place of the image's: patches, on the image's own source or on another."""

    driver: str
    patches: tuple[Patch, ...] = ()
    source: Source | None = None

    @property
    def name(self) -> str:
        """Return the driver's name as the kernel's source writes it."""
        return self.driver.replace("_", "-")

    def parts(self) -> list[tuple[Patch, list[Change]]]:
        """Return what of each patch is about this driver; patches about others are left out."""
        own = [(p, [c for c in p.changes if c.path.startswith(_OWN[self.driver])]) for p in self.patches]
        return [(patch, changes) for patch, changes in own if changes]

    def described(self) -> dict[str, Any]:
        """Return what a capture's manifest says about the driver: what it is made of."""
        return {
            "patches": [
                {
                    "file": patch.file.name,
                    "subject": patch.subject,
                    "sha256": hashlib.sha256(b"".join(change.text for change in changes)).hexdigest(),
                }
                for patch, changes in self.parts()
            ],
            "source": self.source.described() if self.source else None,
        }

    def check(self) -> None:
        """Raise DriverError for a file of patches in which there is nothing for this driver."""
        used = {patch.file for patch, _ in self.parts()}
        for patch in self.patches:
            if patch.file not in used:
                others = ", ".join(change.path for change in patch.changes)
                raise DriverError(
                    f"{patch}: changes nothing of {self.name}, only {others}: give it to the other driver's "
                    f"option, or name files from the kernel's top ({_OWN[self.driver]}...)"
                )


@dataclass(frozen=True)
class Driver:
    """A driver to be loaded in the place of the image's.

    `module` has the DWARF, for the probes, `loadable` is the same without. `made_of` says in a capture's
    manifest what it was made of.
    """

    module: Path
    loadable: Path
    made_of: Mapping[str, Any]


def build_drivers(recipe: Recipe, tree: Path, progress: Progress) -> Mapping[str, Path]:
    """Return the image's two drivers by module name, each with its DWARF.

    `tree` holds the recipe's unpacked packages. See `stripped` for what to load.
    """
    return _modules(recipe, tree, progress, [Variant(name) for name in _MODULES])


def build_variants(
    recipe: Recipe, tree: Path, progress: Progress, variants: Sequence[Variant]
) -> dict[str, Driver]:
    """Return drivers of one's own by module name, built against the image's kernel.

    Patches are applied in their order. DriverError is in the words of patch or of the compiler.
    """
    for variant in variants:
        variant.check()
    skipped = left_out(variants)
    if skipped:
        progress(f"no part of the drivers under test, so not applied: {', '.join(skipped)}")
    drivers = {}
    for variant in variants:
        module = _modules(recipe, tree, progress, [variant])[variant.driver]
        for line in module.with_name(_WARNINGS).read_text().splitlines():
            progress(line)
        made_of = {**variant.described(), "left_out": skipped}
        drivers[variant.driver] = Driver(module, stripped(module), made_of)
    return drivers


def left_out(variants: Sequence[Variant]) -> list[str]:
    """Return the files that patches change but that belong to none of the drivers they were given for."""
    paths = {change.path for variant in variants for patch in variant.patches for change in patch.changes}
    applied = {change.path for variant in variants for _, changes in variant.parts() for change in changes}
    return sorted(paths - applied)


def stripped(module: Path) -> Path:
    """Return the copy without debug sections that lies beside a built module."""
    return module.with_suffix(".stripped.ko")


def sources_of(module: Path) -> Path:
    """Return the directory beside a built module with the text that it was compiled from."""
    return module.parent / _SOURCES


def _modules(
    recipe: Recipe, tree: Path, progress: Progress, variants: Sequence[Variant]
) -> Mapping[str, Path]:
    if re.search(r"[\s:]", str(tree)):
        raise DriverError(f"{tree}: make cannot work below such a name: set BLKPROOF_CACHE to a plain one")

    def make(work: Path) -> None:
        progress(f"building {' and '.join(_told(variant) for variant in variants)}")
        with tempfile.TemporaryDirectory(prefix="blkproof-driver-") as scratch:
            # The compiler records directories as the kernel's makefiles see them: without symlinks.
            build = _Build(recipe, tree.resolve(), Path(scratch).resolve(), variants)
            shutil.copytree(build.sources, work / _SOURCES)
            (work / _WARNINGS).write_text(build.compile())
            for variant in variants:
                path = build.sources / _MODULES[variant.driver]
                build.deliver(path, work / f"{variant.driver}.ko")

    inputs = [_VERSION, tree.name.encode(), recipe.driver.model_dump_json().encode()]
    for variant in variants:
        inputs.append(f"{variant.driver} {variant.source.digest if variant.source else ''}".encode())
        inputs += [change.text for _, changes in variant.parts() for change in changes]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in inputs)).hexdigest()[:32]
    built = once(cache_root() / "drivers" / key, progress, make)
    return {variant.driver: built / f"{variant.driver}.ko" for variant in variants}


def _told(variant: Variant) -> str:
    """Name a driver and what it is made of, for a line of progress."""
    words = [variant.name]
    if variant.source:
        words.append(f"from {variant.source}")
    if parts := variant.parts():
        words.append(f"with {len(parts)} patch{'es' if len(parts) > 1 else ''}")
    return " ".join(words)


class _Build:
    """One build in a directory of its own."""

    def __init__(self, recipe: Recipe, tree: Path, work: Path, variants: Sequence[Variant]) -> None:
        self.sources = work / "linux"
        self._recipe = recipe
        self._tools = Toolchain(tree, recipe.driver.compiler, work)
        self._flags = recipe.driver.flags
        self._tree = tree
        self._kernel = work / "kernel"
        self._variants = variants
        shutil.copytree(tree / "driver-source", self.sources)
        for variant in variants:
            if variant.source:
                variant.source.put(self.sources / _BLOCK)
            for patch, changes in variant.parts():
                for change in changes:
                    self._apply(patch, change)

    def _apply(self, patch: Patch, change: Change) -> None:
        command = ["patch", f"-p{change.strip}", "--batch", "--forward", "--fuzz=0", "--reject-file=-"]
        done = self._tools.run(command, self.sources, change.text)
        if done.returncode != 0:
            words = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise DriverError(f"{patch}: does not apply to {change.path} of {self._origin(change)}:\n{words}")

    def _origin(self, change: Change) -> str:
        """Name the source that a change is for."""
        own = [v.source for v in self._variants if v.source and change.path.startswith(_OWN[v.driver])]
        stem = Path(self._recipe.boot.source).name.removesuffix(".tar.xz")
        return str(own[0]) if own else f"{stem} of {self._recipe.name}"

    def compile(self) -> str:
        """Compile all drivers and return the warnings about them."""
        headers = only(self._tree, "usr/src/linux-headers-*-amd64")
        common = only(self._tree, "usr/src/linux-headers-*-common")
        self._kernel.mkdir()
        for path in headers.iterdir():
            if path.name in _KERNELS_PROGRAMS:
                self._tools.copy(path.resolve(), self._kernel / path.name)
            elif path.name not in _LEFT_OUT:
                (self._kernel / path.name).symlink_to(path.resolve())
        # The package's own Makefile names both halves by paths outside of the cache.
        (self._kernel / "Makefile").write_text(f"KBUILD_OUTPUT={self._kernel}\ninclude {common}/Makefile\n")
        (self.sources / _BLOCK / "Kbuild").write_text(
            "".join(_KBUILD[variant.driver] for variant in self._variants)
        )
        done = self._tools.run(
            [
                "make",
                f"-j{cores()}",
                f"M={self.sources / _BLOCK}",
                f"KCFLAGS={' '.join([*self._flags, *self._prefix_maps(common)])}",
                "CONFIG_XEN_BLKDEV_BACKEND=m",
                "modules",
            ],
            self._kernel,
        )
        if done.returncode != 0:
            words = (done.stderr or done.stdout[-2000:]).decode(errors="replace")
            raise DriverError(self._complaint(words.replace(f"{self.sources}/", "").strip()))
        words = done.stderr.decode(errors="replace").replace(f"{self.sources}/", "")
        return "".join(
            f"{line}\n"
            for line in words.splitlines()
            if line.startswith(f"{_BLOCK}/") and " warning: " in line
        )

    def _complaint(self, words: str) -> str:
        """Say what does not compile, in the compiler's words, and which patch brought it."""
        what = " and ".join(_told(variant) for variant in self._variants)
        found = _COMPLAINT.search(words)
        culprit = self._culprit(found[1], int(found[2])) if found else None
        brought = f", {culprit}" if culprit else ""
        return f"{what}{brought}: does not compile for the kernel of {self._recipe.name}:\n{words}"

    def _culprit(self, path: str, line: int) -> Patch | None:
        """Return the last patch that adds such a line to a file; None if none does."""
        text = (self.sources / path).read_bytes().splitlines()[line - 1]
        adding = [
            patch
            for variant in self._variants
            for patch, changes in variant.parts()
            for change in changes
            if change.path == path and b"+" + text in change.text.splitlines()
        ]
        return adding[-1] if adding else None

    def deliver(self, module: Path, target: Path) -> None:
        shutil.copyfile(module, target)
        done = self._tools.run(
            ["strip", "--strip-debug", "-o", str(stripped(target)), str(module)], self._kernel
        )
        if done.returncode != 0:
            raise DriverError(f"{module.name}: strip failed: {done.stderr.decode(errors='replace').strip()}")

    def _prefix_maps(self, common: Path) -> list[str]:
        """Return flags that keep this machine's directories out of the modules."""
        names = {self.sources: "/linux", self._kernel: "/kernel", common: "/headers", self._tree: ""}
        return [
            f"-f{kind}-prefix-map={path}={name}"
            for path, name in names.items()
            for kind in ("debug", "macro")
        ]
