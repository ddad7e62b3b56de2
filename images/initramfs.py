"""The two initramfs archives: dom0 with the toolstack, and the guest with fio."""

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from blkproof.images.cpio import Archive
from blkproof.images.elf import Libraries, module_dependencies
from blkproof.images.errors import PackageError
from blkproof.images.recipe import System
from blkproof.images.stubs import stand_ins
from blkproof.images.toolchain import Toolchain, only

OVERLAY = Path(__file__).parent / "overlay"
_LOADER = "ld-linux-x86-64.so.2"
_EMPTY_DIRS = (
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "root",
    "var/log/xen/console",
    "var/lib/xen",
    "var/lock",
    "var/run/xen",
)
_XENSTORE_TOOLS = ("chmod", "exists", "list", "ls", "read", "rm", "watch", "write")


def system_archive(tree: Path, system: System, overlay: str, compiler: str) -> Archive:
    """Return an archive with a system's overlay, programs, libraries and kernel modules."""
    archive = Archive()
    for directory in _EMPTY_DIRS:
        archive.directory(directory)
    archive.tree(OVERLAY / overlay)
    programs = [only(tree, pattern) for pattern in system.programs]
    for program in programs:
        archive.file(f"bin/{program.name}", program.read_bytes(), 0o755)
    _add_libraries(archive, tree, system, programs, compiler)
    _add_applets(archive, tree / "bin/busybox")
    for tool in _XENSTORE_TOOLS:
        archive.symlink(f"bin/xenstore-{tool}", "xenstore")
    _add_modules(archive, tree, system)
    return archive


def load_order(modules: Mapping[str, Path], builtin: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return `wanted` modules and what they need, each after its dependencies; built-in ones are left out."""
    present = set(builtin)
    order: list[str] = []

    def visit(name: str) -> None:
        name = name.replace("-", "_")
        if name in order or name in present:
            return
        if name not in modules:
            raise PackageError(f"the kernel package has no module {name}")
        for needed in module_dependencies(modules[name].read_bytes()):
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def _add_libraries(archive: Archive, tree: Path, system: System, programs: list[Path], compiler: str) -> None:
    libraries = Libraries(tree)
    for name, path in libraries.closure(programs, system.libraries, system.stand_ins).items():
        place = "lib64" if name == _LOADER else "lib/x86_64-linux-gnu"
        archive.file(f"{place}/{name}", path.read_bytes(), 0o755)
    if system.stand_ins:
        with tempfile.TemporaryDirectory(prefix="blkproof-stubs-") as scratch:
            tools = Toolchain(tree, compiler, Path(scratch))
            for name, data in stand_ins(libraries, programs, system.stand_ins, tools).items():
                archive.file(f"lib/x86_64-linux-gnu/{name}", data, 0o755)


def _add_modules(archive: Archive, tree: Path, system: System) -> None:
    base = only(tree, "lib/modules/*")
    modules = {path.stem.replace("-", "_"): path for path in base.rglob("*.ko")}
    listed = (base / "modules.builtin").read_text().split()
    builtin = [Path(line).stem.replace("-", "_") for line in listed]
    load = load_order(modules, builtin, system.load)
    for name in load_order(modules, builtin, [*system.load, *system.carry]):
        archive.file(f"lib/blkproof/{name}.ko", modules[name].read_bytes())
    archive.file("lib/blkproof/modules.order", "".join(f"{name}\n" for name in load).encode())


def _add_applets(archive: Archive, busybox: Path) -> None:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in listed.split():
        if f"bin/{applet}" not in archive:
            archive.symlink(f"bin/{applet}", "busybox")
