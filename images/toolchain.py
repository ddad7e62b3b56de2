"""The suite's own compiler and binutils, run out of the unpacked packages.

The host needs no compiler, and every host makes the same bytes from the same packages. Programs are
started by their own suite's loader with their own suite's libraries, its libc too, since a newer suite's
programs don't run with an older host's. A small script in each program's place does that: unlike a
chroot it needs no rights, and the host's shell, which make runs, keeps the host's libraries.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from blkproof.images.elf import LOADER, Libraries, is_elf
from blkproof.images.errors import PackageError

_BINUTILS = ("as", "ld", "ar", "nm", "objcopy", "objdump", "readelf", "strip")
_PARTS_OF_THE_COMPILER = ("cc1", "collect2")
_TRIPLET = "x86_64-linux-gnu-"
"""What newer suites' kernel makefiles put before a tool's name."""


class Toolchain:
    """Programs of a tree, to be called in `work`/bin, with their libraries in `work`/lib."""

    def __init__(self, tree: Path, compiler: str, work: Path) -> None:
        self.compiler = compiler
        self.work = work
        self._tools, self._libraries = work / "bin", work / "lib"
        self._tools.mkdir(parents=True)
        self._libraries.mkdir()
        self._available = Libraries(tree)
        found = {tool: only(tree, f"usr/bin/{_TRIPLET}{tool}") for tool in _BINUTILS}
        found |= {
            part: only(tree, f"usr/lib*/gcc/x86_64-linux-gnu/*/{part}") for part in _PARTS_OF_THE_COMPILER
        }
        found |= {tool: only(tree, f"usr/bin/{tool}") for tool in ("make", "patch")}
        # Not for each suite's packages.
        found |= {path.name: path for path in tree.glob("usr/bin/zstd")}
        for name, path in found.items():
            self._stand_for(path, self._tools / name)
        # The compiler finds its headers beside itself, and its parts here.
        real = only(tree, f"usr/bin/{_TRIPLET}{compiler}").resolve()
        self._stand_for(real, self._tools / compiler, str(real), f"-B{self._tools}/")
        for name in (*_BINUTILS, compiler):
            (self._tools / f"{_TRIPLET}{name}").symlink_to(name)
        self._environment = {
            "PATH": f"{self._tools}:/usr/bin:/bin",
            "LC_ALL": "C",
            "KBUILD_BUILD_TIMESTAMP": "@0",
            "KBUILD_BUILD_USER": "blkproof",
            "KBUILD_BUILD_HOST": "blkproof",
        }

    def copy(self, source: Path, target: Path) -> None:
        """Copy a directory, with programs in it that run on this host."""

        def copy_one(path: str, place: str) -> None:
            if is_elf(Path(path)):
                self._stand_for(Path(path), Path(place))
            else:
                shutil.copy2(path, place)

        shutil.copytree(source, target, symlinks=True, copy_function=copy_one)

    def run(
        self, command: Sequence[str], cwd: Path, given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of the tree in `cwd`, with `given` to read; the caller judges how it ended."""
        try:
            return subprocess.run(
                [self._tools / command[0], *command[1:]],
                cwd=cwd,
                input=given,
                env=self._environment,
                capture_output=True,
                check=False,
            )
        except PermissionError as error:
            raise PackageError(
                f"{self._tools}: programs may not be started there: set TMPDIR to a directory "
                "of a file system that is not mounted noexec"
            ) from error

    def _stand_for(self, program: Path, place: Path, called: str = "", *first: str) -> None:
        """Put a script at `place` that starts `program`, which sees `called` or the script as its name."""
        for name, path in self._available.closure([program], [LOADER]).items():
            if not (self._libraries / name).is_symlink():
                (self._libraries / name).symlink_to(path)
        name = shlex.quote(called) if called else '"$0"'
        start = shlex.join([f"{self._libraries}/{LOADER}", "--library-path", str(self._libraries), "--argv0"])
        place.write_text(f'#!/bin/sh\nexec {start} {name} {shlex.join([str(program), *first])} "$@"\n')
        place.chmod(0o755)


def only(tree: Path, pattern: str) -> Path:
    """Return the one path that a glob below `tree` matches."""
    found = sorted(tree.glob(pattern))
    if len(found) != 1:
        raise PackageError(f"{pattern}: matches {len(found)} files in the unpacked packages, expected one")
    return found[0]


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
