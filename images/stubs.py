"""Stand-ins for libraries that a program links but that nobody here calls.

fio links Ceph, GlusterFS, RDMA and more: 80 MB, loaded and relocated at each start. A stand-in has the
same functions by name, and each ends the program at once, so that a call cannot pass for work done.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from blkproof.images.elf import Libraries, defined_functions, needed_libraries, undefined_symbols
from blkproof.images.errors import PackageError
from blkproof.images.toolchain import Toolchain

_FLAGS = ("-x", "c", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-Wl,--build-id=none")


def stand_ins(
    libraries: Libraries, programs: Iterable[Path], names: Iterable[str], tools: Toolchain
) -> dict[str, bytes]:
    """Return a stand-in for each library in `names`, with the functions that `programs` take from it."""
    wanted: dict[str, str] = {}
    for program in programs:
        if needed_libraries(program):
            wanted |= undefined_symbols(program)
    return {
        name: _stand_in(name, {f: wanted[f] for f in sorted(offered)}, tools)
        for name in names
        if (offered := wanted.keys() & defined_functions(libraries.find(name)))
    }


def _stand_in(name: str, versions: Mapping[str, str], tools: Toolchain) -> bytes:
    """Compile one library out of functions with their versions."""
    source = "".join(f"void {function}(void) {{ __builtin_trap(); }}\n" for function in versions)
    by_version = defaultdict(list)
    for function, version in versions.items():
        by_version[version].append(function)
    nodes = (f"{version} {{ {'; '.join(functions)}; }};\n" for version, functions in by_version.items())
    script = tools.work / f"{name}.map"
    script.write_text("".join(nodes))
    linking = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script}"]
    done = tools.run([tools.compiler, *_FLAGS, *linking, "-o", name, "-"], tools.work, source.encode())
    if done.returncode != 0:
        raise PackageError(f"no stand-in for {name}: {done.stderr.decode(errors='replace').strip()}")
    return (tools.work / name).read_bytes()
