"""The two initramfs archives: dom0 with the toolstack, and the guest with fio."""

import subprocess
from pathlib import Path

from blkproof.images.cpio import Archive
from blkproof.images.elf import LOADER, Libraries
from blkproof.images.modules import Modules
from blkproof.images.recipe import System
from blkproof.images.stubs import stand_ins
from blkproof.images.toolchain import Toolchain, only

OVERLAY = Path(__file__).parent / "overlay"
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


def system_archive(tree: Path, system: System, overlay: str, tools: Toolchain) -> Archive:
    """Return an archive with a system's overlay, programs, libraries and kernel modules."""
    archive = Archive()
    for directory in _EMPTY_DIRS:
        archive.directory(directory)
    archive.tree(OVERLAY / overlay)
    programs = [only(tree, pattern) for pattern in system.programs]
    for program in programs:
        archive.file(f"bin/{program.name}", program.read_bytes(), 0o755)
    _add_libraries(archive, tree, system, programs, tools)
    _add_applets(archive, tree / "bin/busybox")
    for tool in _XENSTORE_TOOLS:
        archive.symlink(f"bin/xenstore-{tool}", "xenstore")
    _add_modules(archive, Modules(tree, tools), system)
    return archive


def _add_libraries(
    archive: Archive, tree: Path, system: System, programs: list[Path], tools: Toolchain
) -> None:
    libraries = Libraries(tree)
    for name, path in libraries.closure(programs, system.libraries, system.stand_ins).items():
        place = "lib64" if name == LOADER else "lib/x86_64-linux-gnu"
        archive.file(f"{place}/{name}", path.read_bytes(), 0o755)
    if system.stand_ins:
        for name, data in stand_ins(libraries, programs, system.stand_ins, tools).items():
            archive.file(f"lib/x86_64-linux-gnu/{name}", data, 0o755)


def _add_modules(archive: Archive, modules: Modules, system: System) -> None:
    load = modules.load_order(system.load)
    for name in modules.load_order([*system.load, *system.carry]):
        archive.file(f"lib/blkproof/{name}.ko", modules.read(name))
    archive.file("lib/blkproof/modules.order", "".join(f"{name}\n" for name in load).encode())


def _add_applets(archive: Archive, busybox: Path) -> None:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in listed.split():
        if f"bin/{applet}" not in archive:
            archive.symlink(f"bin/{applet}", "busybox")
