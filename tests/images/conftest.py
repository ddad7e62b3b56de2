"""Small packages, a mirror that serves them, and the real packages for what needs them."""

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from blkproof.images.build import package_tree
from blkproof.images.lock import Lock, LockedPackage
from blkproof.images.recipe import Recipe, load_recipe

RECIPE = """
suite = "bookworm"
[packages]
xen = ["a"]
kernel = ["a"]
dom0 = ["a"]
guest = ["a"]
toolchain = ["linux-source-0"]
[versions]
[boot]
xen = "boot/xen.gz"
kernel = "boot/vmlinuz"
source = "usr/src/linux-source-0.tar.xz"
[dom0]
programs = ["bin/a"]
[guest]
programs = ["bin/a"]
[driver]
compiler = "gcc"
flags = []
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty cache of its own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("BLKPROOF_CACHE", str(root))
    return root


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return load_recipe(path)


@dataclass
class Pool:
    """A directory of package files in the shape of a mirror."""

    root: Path

    def add(self, name: str, files: dict[str, bytes]) -> LockedPackage:
        tree = self.root / f"build-{name}"
        for path, data in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1+2\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
        (tree / "DEBIAN/control").write_text(control)
        filename = f"pool/main/{name}_1+2_all.deb"
        target = self.root / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", tree, target], check=True, capture_output=True
        )
        data = target.read_bytes()
        return LockedPackage(
            name=name,
            version="1+2",
            arch="all",
            filename=filename,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def path(self, package: LockedPackage) -> Path:
        return self.root / package.filename


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path / "pool")


@pytest.fixture
def mirror(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the pool over HTTP, with blkproof pointed at it."""
    pool.root.mkdir(exist_ok=True)
    handler = functools.partial(_Silent, directory=str(pool.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("BLKPROOF_MIRROR", address)
        yield address
        server.shutdown()
        thread.join()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def lock_of() -> Callable[..., Lock]:
    def make(recipe: Recipe, *packages: LockedPackage) -> Lock:
        return Lock(suite=recipe.suite, requested=recipe.packages.all(), packages=packages)

    return make


@pytest.fixture(scope="session")
def debian12() -> Recipe:
    return load_recipe("debian12")


@pytest.fixture(scope="session")
def debian12_tree(debian12: Recipe) -> Path:
    """Return the unpacked packages of the real recipe, from the user's own cache."""
    return package_tree(debian12, progress=print)


@pytest.fixture(scope="session")
def debian13() -> Recipe:
    return load_recipe("debian13")


@pytest.fixture(scope="session")
def debian13_tree(debian13: Recipe) -> Path:
    """Return the same of a newer suite: its programs ask for more than an older host's libraries have."""
    return package_tree(debian13, progress=print)
