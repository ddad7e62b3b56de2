"""The drivers under test, rebuilt from the suite's kernel source, with patches if asked.

The suite's own compiler, unpacked in the cache, does it: the host needs none, and every host
builds the same bytes.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from blkproof.images.cache import Progress, cache_root, once
from blkproof.images.elf import Libraries
from blkproof.images.errors import DriverError, PackageError
from blkproof.images.recipe import Recipe

BLOCK = Path("drivers/block")
_MODULES = {
    "xen_blkback": BLOCK / "xen-blkback/xen-blkback.ko",
    "xen_blkfront": BLOCK / "xen-blkfront.ko",
}
_KBUILD = "obj-m := xen-blkfront.o xen-blkback/\n"
_BINUTILS = ("as", "ld", "ar", "nm", "objcopy", "objdump", "readelf", "strip")


def build_drivers(
    recipe: Recipe, tree: Path, progress: Progress, patches: Sequence[Path] = ()
) -> Mapping[str, Path]:
    """Return the two drivers with their DWARF, by module name, built with `patches` applied in order.

    `tree` holds the recipe's unpacked packages. Patches are relative to the kernel's top directory
    (`patch -p1`). Raises DriverError in the words of patch or of the compiler.
    """
    texts = [_patch_text(patch) for patch in patches]

    def make(work: Path) -> None:
        progress(
            "building xen-blkback and xen-blkfront" + (f" with {len(patches)} patches" if patches else "")
        )
        sources = work / "linux"
        shutil.copytree(tree / "driver-source", sources)
        for patch, text in zip(patches, texts, strict=True):
            _apply(patch, text, tree, sources)
        _compile(recipe, tree, work, sources)
        for name, path in _MODULES.items():
            (sources / path).rename(work / f"{name}.ko")
        for scratch in (sources, work / "kernel", work / "bin", work / "lib"):
            shutil.rmtree(scratch)

    own_bytes = Path(__file__).read_bytes()
    inputs = [tree.name.encode(), recipe.driver.model_dump_json().encode(), own_bytes, *texts]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in inputs)).hexdigest()[:32]
    built = once(cache_root() / "drivers" / key, progress, make)
    return {name: built / f"{name}.ko" for name in _MODULES}


def strip_debug(tree: Path, module: Path, target: Path) -> None:
    """Write a copy of a module without its debug sections."""
    _run_tool(tree, ["strip", "--strip-debug", "-o", str(target), str(module)])


def _patch_text(patch: Path) -> bytes:
    try:
        return patch.read_bytes()
    except OSError as error:
        raise DriverError(f"{patch}: cannot be read as a patch: {error.strerror}") from error


def _apply(patch: Path, text: bytes, tree: Path, sources: Path) -> None:
    command = [str(tree / "usr/bin/patch"), "-p1", "--batch", "--forward", "--fuzz=0", "--reject-file=-"]
    done = subprocess.run(command, cwd=sources, input=text, capture_output=True, check=False)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).decode(errors="replace")
        raise DriverError(f"{patch}: does not apply to the driver's source: {' '.join(words.split())}")


def _compile(recipe: Recipe, tree: Path, work: Path, sources: Path) -> None:
    headers = _only(tree, "usr/src/linux-headers-*-amd64")
    common = _only(tree, "usr/src/linux-headers-*-common")
    kernel = work / "kernel"
    kernel.mkdir()
    for path in headers.iterdir():
        if path.name != "Makefile":
            (kernel / path.name).symlink_to(path.resolve())
    # The package's own Makefile names its other half by an absolute path outside of the cache.
    (kernel / "Makefile").write_text(f"include {common}/Makefile\n")
    (sources / BLOCK / "Kbuild").write_text(_KBUILD)
    places = {str(sources): "/linux", str(kernel): "/kernel", str(common): "/headers", str(tree): ""}
    maps = [f"-f{kind}-prefix-map={old}={new}" for old, new in places.items() for kind in ("debug", "macro")]
    command = [
        str(tree / "usr/bin/make"),
        f"-j{os.cpu_count() or 1}",
        "-C",
        str(kernel),
        f"M={sources / BLOCK}",
        f"KCFLAGS={' '.join([*recipe.driver.flags, *maps])}",
        "CONFIG_XEN_BLKDEV_BACKEND=m",
        "modules",
    ]
    done = subprocess.run(
        command, env=_environment(recipe, tree, work), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = done.stderr.replace(f"{sources}/", "").strip() or done.stdout[-2000:]
        raise DriverError(f"the drivers do not compile: {words}")


def _environment(recipe: Recipe, tree: Path, work: Path) -> dict[str, str]:
    """Return an environment in which only the tree's compiler is found.

    Its libraries lie in a directory of their own: the tree's libc must not reach the host's shell.
    """
    tools, libraries = work / "bin", work / "lib"
    tools.mkdir()
    libraries.mkdir()
    compiler = recipe.driver.compiler
    found = {tool: _only(tree, f"usr/bin/x86_64-linux-gnu-{tool}") for tool in _BINUTILS}
    found |= {compiler: _only(tree, f"usr/bin/x86_64-linux-gnu-{compiler}"), "make": tree / "usr/bin/make"}
    for name, path in found.items():
        (tools / name).symlink_to(path)
    programs = [path.resolve() for path in found.values()]
    programs += [
        _only(tree, "usr/lib/gcc/x86_64-linux-gnu/*/cc1"),
        _only(tree, "usr/lib/linux-kbuild-*/tools/objtool/objtool"),
    ]
    for name, path in Libraries(tree).closure(programs).items():
        if not name.startswith(("libc.so", "libm.so", "ld-linux")):
            (libraries / name).symlink_to(path)
    return {
        "PATH": f"{tools}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(libraries),
        "LC_ALL": "C",
        "KBUILD_BUILD_TIMESTAMP": "@0",
        "KBUILD_BUILD_USER": "blkproof",
        "KBUILD_BUILD_HOST": "blkproof",
    }


def _run_tool(tree: Path, command: list[str]) -> None:
    path = ":".join(str(tree / part) for part in ("usr/lib/x86_64-linux-gnu",))
    program = str(_only(tree, f"usr/bin/x86_64-linux-gnu-{command[0]}"))
    done = subprocess.run(
        [program, *command[1:]], env={"LD_LIBRARY_PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DriverError(f"{command[0]} failed: {done.stderr.strip()}")


def _only(tree: Path, pattern: str) -> Path:
    """Return the one path that a glob below `tree` matches."""
    found = sorted(tree.glob(pattern))
    if len(found) != 1:
        raise PackageError(f"{pattern}: matches {len(found)} files in the unpacked packages, expected one")
    return found[0]
