"""The kernel's own modules: found by name, unpacked, and put in the order that insmod needs."""

from collections.abc import Iterable
from pathlib import Path

from blkproof.images.elf import module_dependencies
from blkproof.images.errors import PackageError
from blkproof.images.packing import unpacked
from blkproof.images.toolchain import Toolchain, only


class Modules:
    """The modules in a tree of unpacked packages; a name may have dashes or underscores."""

    def __init__(self, tree: Path, tools: Toolchain) -> None:
        base = only(tree, "lib/modules/*")
        self._paths = {_name(path): path for path in base.rglob("*.ko*")}
        self._builtin = {_name(Path(line)) for line in (base / "modules.builtin").read_text().split()}
        self._tools = tools
        self._read: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """Return a module, unpacked."""
        if name not in self._read:
            if name not in self._paths:
                raise PackageError(f"the kernel package has no module {name}")
            path = self._paths[name]
            self._read[name] = unpacked(path.name, path.read_bytes(), self._tools)
        return self._read[name]

    def load_order(self, wanted: Iterable[str]) -> list[str]:
        """Return `wanted` and what they need, each after its dependencies; built-in ones are left out."""
        order: list[str] = []

        def visit(name: str) -> None:
            name = name.replace("-", "_")
            if name in order or name in self._builtin:
                return
            for needed in module_dependencies(self.read(name)):
                visit(needed)
            order.append(name)

        for name in wanted:
            visit(name)
        return order


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")
