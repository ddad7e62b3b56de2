"""The suite's own compiler and binutils, run out of the unpacked packages.

The host needs no compiler, and every host makes the same bytes from the same packages.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from blkproof.images.elf import Libraries
from blkproof.images.errors import PackageError

_BINUTILS = ("as", "ld", "ar", "nm", "objcopy", "objdump", "readelf", "strip")
_ALSO_RUN = ("usr/lib/gcc/x86_64-linux-gnu/*/cc1", "usr/lib/linux-kbuild-*/tools/objtool/objtool")
_FROM_HOST = ("libc.so", "libm.so", "ld-linux")


class Toolchain:
    """Programs of a tree, linked into `work`/bin with their libraries in `work`/lib.

    The libraries lie apart because the tree's libc must not reach the host's shell, which make runs.
    """

    def __init__(self, tree: Path, compiler: str, work: Path) -> None:
        tools, libraries = work / "bin", work / "lib"
        tools.mkdir(parents=True)
        libraries.mkdir()
        found = {tool: only(tree, f"usr/bin/x86_64-linux-gnu-{tool}") for tool in _BINUTILS}
        found |= {compiler: only(tree, f"usr/bin/x86_64-linux-gnu-{compiler}")}
        found |= {tool: only(tree, f"usr/bin/{tool}") for tool in ("make", "patch")}
        for name, path in found.items():
            (tools / name).symlink_to(path)
        programs = [path.resolve() for path in found.values()] + [only(tree, glob) for glob in _ALSO_RUN]
        for name, path in Libraries(tree).closure(programs).items():
            if not name.startswith(_FROM_HOST):
                (libraries / name).symlink_to(path)
        self.compiler = compiler
        self.work = work
        self._tools = tools
        self._environment = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(libraries),
            "LC_ALL": "C",
            "KBUILD_BUILD_TIMESTAMP": "@0",
            "KBUILD_BUILD_USER": "blkproof",
            "KBUILD_BUILD_HOST": "blkproof",
        }

    def run(
        self, command: Sequence[str], cwd: Path, given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of the tree in `cwd`, with `given` to read; the caller judges how it ended."""
        return subprocess.run(
            [self._tools / command[0], *command[1:]],
            cwd=cwd,
            input=given,
            env=self._environment,
            capture_output=True,
            check=False,
        )


def only(tree: Path, pattern: str) -> Path:
    """Return the one path that a glob below `tree` matches."""
    found = sorted(tree.glob(pattern))
    if len(found) != 1:
        raise PackageError(f"{pattern}: matches {len(found)} files in the unpacked packages, expected one")
    return found[0]


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
