"""Package files in the cache: downloaded by the lock, verified, unpacked into one tree."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blkproof.images.apt import download, host_mirror
from blkproof.images.cache import Progress, cache_root, need_disk, once
from blkproof.images.errors import FetchError, PackageError, StaleLockError
from blkproof.images.lock import Lock, LockedPackage
from blkproof.images.recipe import Recipe
from blkproof.images.toolchain import cores

_UNPACKED_SIZE = 1500 << 20
_NEVER_NEEDED = ("./usr/share/*", "*/kernel/sound/*", "*/kernel/drivers/gpu/*", "*/kernel/drivers/media/*")
_DRIVER_SOURCES = "drivers/block/xen-blk*"
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories that every system has in /usr; older suites' packages don't say so."""
_UNTAR = ("tar", "-x", "--keep-directory-symlink", "-C")


def fetch(recipe: Recipe, lock: Lock, progress: Progress) -> dict[str, Path]:
    """Return each package's file by package name, downloading what the cache lacks.

    Every file is held against its sha256, those from the cache too; a bad one is fetched again.
    """
    store = cache_root() / "debs"
    paths = {p.name: store / f"{p.sha256}.deb" for p in lock.packages}
    missing = [p for p, good in zip(lock.packages, _verify(lock.packages, paths), strict=True) if not good]
    if missing:
        size = sum(p.size for p in missing)
        need_disk(store, size + _UNPACKED_SIZE, f"building image {recipe.name}")
        progress(f"downloading {len(missing)} packages, {size / 1e6:.0f} MB")
        _download(recipe, missing, paths, progress)
    return paths


def unpack(recipe: Recipe, lock: Lock, progress: Progress) -> Path:
    """Return the directory that holds all packages of the lock, unpacked over one another.

    Of the kernel's source only the drivers under test are there, below `driver-source/`.
    """

    def make(work: Path) -> None:
        debs = fetch(recipe, lock, progress)
        need_disk(work, _UNPACKED_SIZE, f"unpacking image {recipe.name}")
        progress(f"unpacking {len(debs)} packages")
        source = _source_package(recipe, debs)
        for name in _MERGED:
            (work / "usr" / name).mkdir(parents=True)
            (work / name).symlink_to(f"usr/{name}")
        jobs = sorted(debs.items(), key=lambda item: -item[1].stat().st_size)
        with ThreadPoolExecutor(max(2, cores())) as pool:
            results = [
                pool.submit(_unpack_source, recipe, deb, work)
                if name == source
                else pool.submit(_unpack_one, name, deb, work)
                for name, deb in jobs
            ]
            for result in results:
                result.result()

    return once(tree_root(recipe, lock), progress, make)


def tree_root(recipe: Recipe, lock: Lock) -> Path:
    """Return where the packages of the lock are unpacked."""
    chosen = f"{lock.digest} {recipe.boot.source} {_NEVER_NEEDED} {_DRIVER_SOURCES} {_MERGED}"
    return cache_root() / "trees" / hashlib.sha256(chosen.encode()).hexdigest()[:32]


def _verify(packages: Sequence[LockedPackage], paths: dict[str, Path]) -> list[bool]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda p: _digest(paths[p.name]) == p.sha256, packages))


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _download(
    recipe: Recipe, missing: list[LockedPackage], paths: dict[str, Path], progress: Progress
) -> None:
    mirror = host_mirror()
    store = cache_root() / "debs"
    with tempfile.TemporaryDirectory(dir=store, prefix=".incoming.") as incoming:
        arriving = {p.name: Path(incoming) / p.sha256 for p in missing}
        words = download({arriving[p.name]: p for p in missing}, mirror, progress)
        verified = list(zip(missing, _verify(missing, arriving), strict=True))
        for package, good in verified:
            if good:
                arriving[package.name].rename(paths[package.name])
    for package, good in verified:
        if not good:
            raise _failure(recipe, package, mirror.url(package.filename), words)


def _failure(recipe: Recipe, package: LockedPackage, url: str, words: str) -> FetchError | StaleLockError:
    lines = [line.strip() for line in words.splitlines()]
    complaint = next((line.partition(url)[2].strip() for line in lines if url in line), "") or " ".join(lines)
    if complaint.startswith("404"):
        return StaleLockError(
            f"{url}: the mirror no longer has {package.name} {package.version}, which the lock of image "
            f"{recipe.name} names: run `blkproof image lock {recipe.name}`"
        )
    if "Hash Sum mismatch" in complaint:
        return FetchError(
            f"{url}: its sha256 is not the one in the lock of image {recipe.name}, so it was thrown away: "
            "try again, or use another mirror (BLKPROOF_MIRROR)"
        )
    return FetchError(
        f"{url}: not in the cache and cannot be downloaded: {complaint or 'nothing arrived'}: "
        "check the network, or set BLKPROOF_MIRROR to a Debian mirror that can be reached"
    )


def _unpack_one(name: str, deb: Path, work: Path) -> None:
    excluded = [f"--exclude={pattern}" for pattern in _NEVER_NEEDED]
    _pipe(name, ["dpkg-deb", "--fsys-tarfile", str(deb)], [*_UNTAR, str(work), *excluded])


def _source_package(recipe: Recipe, debs: dict[str, Path]) -> str:
    stem = Path(recipe.boot.source).name.removesuffix(".tar.xz")
    if stem not in debs:
        raise PackageError(f"{recipe.path}: key boot.source: no package {stem} among the toolchain's")
    return stem


def _unpack_source(recipe: Recipe, deb: Path, work: Path) -> None:
    target = work / "driver-source"
    target.mkdir()
    _pipe(
        deb.name,
        ["dpkg-deb", "--fsys-tarfile", str(deb)],
        ["tar", "-xO", f"./{recipe.boot.source}"],
        ["xz", "-dc", "-T0"],
        ["tar", "-x", "-C", str(target), "--strip-components=1", "--wildcards", f"*/{_DRIVER_SOURCES}"],
    )


def _pipe(what: str, *commands: list[str]) -> None:
    """Run commands joined by pipes; any that fails is an error in its own words."""
    for command in commands:
        if shutil.which(command[0]) is None:
            raise PackageError(f"{command[0]}: not found: install dpkg, tar and xz-utils to unpack packages")
    running: list[subprocess.Popen[bytes]] = []
    for command in commands:
        upstream = running[-1].stdout if running else subprocess.DEVNULL
        running.append(
            subprocess.Popen(command, stdin=upstream, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        if running[:-1] and running[-2].stdout:
            running[-2].stdout.close()
    running[-1].communicate()
    for command, process in zip(commands, running, strict=True):
        words = (
            process.stderr.read().decode(errors="replace")
            if process.stderr and not process.stderr.closed
            else ""
        )
        if process.wait() != 0:
            raise PackageError(f"{what}: {command[0]} failed while unpacking: {words.strip()}")
