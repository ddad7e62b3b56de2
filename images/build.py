"""From a recipe to a bootable image in the cache."""

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from blkproof.images.apt import resolve
from blkproof.images.cache import Progress, cache_root, need_memory, once
from blkproof.images.cpio import Archive
from blkproof.images.debs import tree_root, unpack
from blkproof.images.drivers import build_drivers, sources_of, stripped
from blkproof.images.elf import section_of
from blkproof.images.errors import ImageError, StaleLockError
from blkproof.images.initramfs import OVERLAY, system_archive
from blkproof.images.keys import make_keys
from blkproof.images.lock import Lock, read_lock, write_lock
from blkproof.images.packing import kernel_of
from blkproof.images.pruning import prune
from blkproof.images.recipe import Recipe, known_recipes, load_recipe
from blkproof.images.toolchain import Toolchain, only

_BUILD_MEMORY = 900 << 20
_FACTS = "image.json"

BLKBACK = "lib/blkproof/xen-blkback.ko"
"""Where dom0 has the backend driver under test, ready to be loaded."""
BLKFRONT = "lib/blkproof/xen-blkfront.ko"
"""Where the guest has the frontend driver under test, ready to be loaded."""


@dataclass(frozen=True)
class Image:
    """A bootable image: everything that a machine is started from.

    `xen` is the multiboot hypervisor, `kernel` the dom0 kernel, `initramfs` dom0's, which holds the
    guest's kernel and initramfs in /guest. `ssh_key` lets root in, `host_key` is dom0's public key.
    `btf` is the kernel's raw .BTF section. `modules` are the drivers under test with their DWARF.
    `digest` names the inputs; `contents` are the sha256 of what was built from them.
    """

    name: str
    digest: str
    root: Path
    xen: Path
    kernel: Path
    initramfs: Path
    guest_initramfs: Path
    ssh_key: Path
    host_key: Path
    btf: Path
    modules: Mapping[str, Path]
    versions: Mapping[str, str]
    contents: Mapping[str, str]


def build(recipe: Recipe, *, progress: Progress, relock_if_stale: bool = False) -> Image:
    """Return the recipe's image, built unless the cache has it; no network is needed then.

    When the mirror no longer has the locked packages, StaleLockError says so; with `relock_if_stale`
    a lock of the cache's own is made instead, which later builds use as well.
    """
    lock = _current_lock(recipe)
    try:
        return _build_locked(recipe, lock, progress)
    except StaleLockError as error:
        if not relock_if_stale:
            raise
        progress(f"{error}; making a lock of our own instead, checked by apt's signatures")
    own = resolve(recipe, progress)
    write_lock(own, _own_lock_path(recipe))
    return _build_locked(recipe, own, progress)


def relock(recipe: Recipe, *, progress: Progress) -> Lock:
    """Resolve the recipe anew and replace the lock beside it."""
    lock = resolve(recipe, progress)
    write_lock(lock, recipe.lock_path)
    return lock


def list_images() -> list[Image]:
    """Return the images in the cache, sorted by name and digest."""
    found = [_read_image(path.parent) for path in (cache_root() / "images").glob(f"[!.]*/{_FACTS}")]
    return sorted(found, key=lambda image: (image.name, image.digest))


def needed() -> set[Path]:
    """Return the images and package trees that the locks of the known recipes name, built or not."""
    locks = [(recipe, _current_lock(recipe)) for recipe in map(load_recipe, known_recipes())]
    return {root for both in locks for root in (_image_root(*both), tree_root(*both))}


def prune_cache(progress: Progress) -> int:
    """Remove what was not used for long and no lock needs; return the bytes that are free again."""
    return prune(needed(), progress)


def package_tree(recipe: Recipe, *, progress: Progress) -> Path:
    """Return the directory of the recipe's unpacked packages, which driver builds start from."""
    return unpack(recipe, _current_lock(recipe), progress)


def _own_lock_path(recipe: Recipe) -> Path:
    committed = hashlib.sha256(recipe.lock_path.read_bytes()).hexdigest()[:16]
    return cache_root() / "locks" / f"{recipe.name}-{committed}.lock.toml"


def _current_lock(recipe: Recipe) -> Lock:
    committed = read_lock(recipe.lock_path, recipe)
    own = _own_lock_path(recipe)
    if own.is_file() and not _image_root(recipe, committed).is_dir():
        return read_lock(own, recipe)
    return committed


def _image_root(recipe: Recipe, lock: Lock) -> Path:
    return cache_root() / "images" / _digest(recipe, lock)[:32]


def _digest(recipe: Recipe, lock: Lock) -> str:
    """Return a sha256 over all inputs: recipe, packages, and this room's own code and overlay."""
    room = Path(__file__).parent
    sources = [path for path in sorted(room.rglob("*")) if path.suffix == ".py" or OVERLAY in path.parents]
    digest = hashlib.sha256(recipe.model_dump_json(exclude={"path"}).encode())
    digest.update(lock.digest.encode())
    for path in sources:
        if path.is_file():
            digest.update(
                f"{path.relative_to(room)} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode()
            )
    return digest.hexdigest()


def _build_locked(recipe: Recipe, lock: Lock, progress: Progress) -> Image:
    def make(work: Path) -> None:
        need_memory(_BUILD_MEMORY, f"building image {recipe.name}")
        tree = unpack(recipe, lock, progress)
        progress("assembling Xen, kernel and initramfs")
        drivers = build_drivers(recipe, tree, progress)
        with tempfile.TemporaryDirectory(prefix="blkproof-tools-") as scratch:
            tools = Toolchain(tree, recipe.driver.compiler, Path(scratch))
            contents = _assemble(recipe, tree, work, drivers, tools)
        built = drivers["xen_blkback"]
        shutil.copytree(sources_of(built), sources_of(work / built.name))
        versions = {label: lock.version(package) for label, package in recipe.versions.items()}
        facts = {
            "name": recipe.name,
            "digest": _digest(recipe, lock),
            "versions": versions,
            "contents": contents,
        }
        (work / _FACTS).write_text(json.dumps(facts, indent=1))

    root = _image_root(recipe, lock)
    is_new = not root.is_dir()
    image = _read_image(once(root, progress, make))
    if is_new:
        try:
            prune_cache(progress)
        except ImageError as error:  # of another recipe: no reason to lose this image
            progress(f"nothing old was removed: {error}")
    return image


def _read_image(root: Path) -> Image:
    facts = json.loads((root / _FACTS).read_text())
    return Image(
        **facts,
        root=root,
        xen=root / "xen",
        kernel=root / "vmlinux",
        initramfs=root / "initramfs",
        guest_initramfs=root / "guest-initramfs",
        ssh_key=root / "ssh_key",
        host_key=root / "host_key.pub",
        btf=root / "vmlinux.btf",
        modules={name: root / f"{name}.ko" for name in ("xen_blkback", "xen_blkfront")},
    )


def _assemble(
    recipe: Recipe, tree: Path, work: Path, drivers: Mapping[str, Path], tools: Toolchain
) -> dict[str, str]:
    kernel = kernel_of(only(tree, recipe.boot.kernel), tools)
    parts = {
        "xen": gzip.decompress(only(tree, recipe.boot.xen).read_bytes()),
        "vmlinux": kernel,
        "vmlinux.btf": section_of(kernel, ".BTF"),
    }
    parts |= {f"{name}.ko": module.read_bytes() for name, module in drivers.items()}
    guest = system_archive(tree, recipe.guest, "guest", tools)
    guest.file(BLKFRONT, stripped(drivers["xen_blkfront"]).read_bytes())
    parts["guest-initramfs"] = _bytes_of(guest)
    dom0 = system_archive(tree, recipe.dom0, "dom0", tools)
    dom0.file(BLKBACK, stripped(drivers["xen_blkback"]).read_bytes())
    dom0.file("guest/vmlinuz", kernel)
    dom0.file("guest/initramfs", parts["guest-initramfs"])
    parts["initramfs"] = _bytes_of(dom0)
    contents = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(parts.items())}
    # The keys are the one thing that is new in each build, so they come after the sum is taken.
    parts["initramfs"] += _bytes_of(make_keys(work))
    for name, data in parts.items():
        (work / name).write_bytes(data)
    return contents


def _bytes_of(archive: Archive) -> bytes:
    out = BytesIO()
    archive.write(out)
    return out.getvalue()
