"""The drivers under test, rebuilt from the suite's kernel source, with patches if asked."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from blkproof.images.cache import Progress, cache_root, once
from blkproof.images.errors import DriverError
from blkproof.images.recipe import Recipe
from blkproof.images.toolchain import Toolchain, cores, only

_BLOCK = Path("drivers/block")
_MODULES = {
    "xen_blkback": _BLOCK / "xen-blkback/xen-blkback.ko",
    "xen_blkfront": _BLOCK / "xen-blkfront.ko",
}
_KBUILD = "obj-m := xen-blkfront.o xen-blkback/\n"
_KERNELS_PROGRAMS = ("scripts", "tools")
_LEFT_OUT = ("Makefile", "vmlinux")
"""Of the headers: a Makefile that is made anew, and the types that only BTF of a module would need."""
_VERSION = b"2"
"""To be raised when a change below gives other modules from the same sources."""


def build_drivers(
    recipe: Recipe, tree: Path, progress: Progress, patches: Sequence[Path] = ()
) -> Mapping[str, Path]:
    """Return the two drivers by module name, each with its DWARF, built with `patches` applied in order.

    `tree` holds the recipe's unpacked packages. Patches are relative to the kernel's top directory
    (`patch -p1`). Raises DriverError in the words of patch or of the compiler. See
    `stripped` for what to load.
    """
    if re.search(r"[\s:]", str(tree)):
        raise DriverError(f"{tree}: make cannot work below such a name: set BLKPROOF_CACHE to a plain one")
    texts = [_patch_text(patch) for patch in patches]

    def make(work: Path) -> None:
        progress(
            "building xen-blkback and xen-blkfront" + (f" with {len(patches)} patches" if patches else "")
        )
        with tempfile.TemporaryDirectory(prefix="blkproof-driver-") as scratch:
            # The compiler records directories as the kernel's makefiles see them: without symlinks.
            build = _Build(recipe, tree.resolve(), Path(scratch).resolve())
            for patch, text in zip(patches, texts, strict=True):
                build.apply(patch, text)
            build.compile()
            for name, path in _MODULES.items():
                build.deliver(build.sources / path, work / f"{name}.ko")

    inputs = [_VERSION, tree.name.encode(), recipe.driver.model_dump_json().encode(), *texts]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in inputs)).hexdigest()[:32]
    built = once(cache_root() / "drivers" / key, progress, make)
    return {name: built / f"{name}.ko" for name in _MODULES}


def stripped(module: Path) -> Path:
    """Return the copy without debug sections that lies beside a built module."""
    return module.with_suffix(".stripped.ko")


class _Build:
    """One build in a directory of its own."""

    def __init__(self, recipe: Recipe, tree: Path, work: Path) -> None:
        self.sources = work / "linux"
        self._tools = Toolchain(tree, recipe.driver.compiler, work)
        self._flags = recipe.driver.flags
        self._tree = tree
        self._kernel = work / "kernel"
        shutil.copytree(tree / "driver-source", self.sources)

    def apply(self, patch: Path, text: bytes) -> None:
        command = ["patch", "-p1", "--batch", "--forward", "--fuzz=0", "--reject-file=-"]
        done = self._tools.run(command, self.sources, text)
        if done.returncode != 0:
            words = (done.stdout + done.stderr).decode(errors="replace")
            raise DriverError(f"{patch}: does not apply to the driver's source: {' '.join(words.split())}")

    def compile(self) -> None:
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
        (self.sources / _BLOCK / "Kbuild").write_text(_KBUILD)
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
            raise DriverError(f"the drivers do not compile: {words.replace(f'{self.sources}/', '').strip()}")

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


def _patch_text(patch: Path) -> bytes:
    try:
        return patch.read_bytes()
    except OSError as error:
        raise DriverError(f"{patch}: cannot be read as a patch: {error.strerror}") from error
