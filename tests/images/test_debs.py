import hashlib
import io
import tarfile

import pytest
from blkproof.images.debs import fetch, unpack
from blkproof.images.errors import FetchError, PackageError, StaleLockError

pytestmark = pytest.mark.usefixtures("cache", "mirror")


@pytest.fixture
def source_package(pool):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name in ("drivers/block/xen-blkfront.c", "drivers/block/xen-blkback/a.c", "fs/other.c"):
            tar.addfile(tarfile.TarInfo(f"linux-source-0/{name}"))
    return pool.add("linux-source-0", {"usr/src/linux-source-0.tar.xz": out.getvalue()})


def test_packages_arrive_verified_under_their_sha256(cache, pool, tiny_recipe, lock_of):
    package = pool.add("a", {"bin/a": b"x"})
    lines = []
    paths = fetch(tiny_recipe, lock_of(tiny_recipe, package), lines.append)
    assert paths["a"] == cache / f"debs/{package.sha256}.deb"
    assert hashlib.sha256(paths["a"].read_bytes()).hexdigest() == package.sha256
    assert lines[0].startswith("downloading 1 packages")


def test_a_full_cache_needs_no_mirror(pool, tiny_recipe, lock_of, monkeypatch):
    lock = lock_of(tiny_recipe, pool.add("a", {"bin/a": b"x"}))
    fetch(tiny_recipe, lock, print)
    monkeypatch.setenv("BLKPROOF_MIRROR", "http://127.0.0.1:1")
    assert fetch(tiny_recipe, lock, pytest.fail)["a"].is_file()


def test_an_empty_cache_without_a_mirror_is_one_clear_error(pool, tiny_recipe, lock_of, monkeypatch):
    monkeypatch.setenv("BLKPROOF_MIRROR", "http://127.0.0.1:1")
    wanted = (
        r"127\.0\.0\.1:1/pool/main/a.*not in the cache and cannot be downloaded: .*connect.*BLKPROOF_MIRROR"
    )
    with pytest.raises(FetchError, match=wanted):
        fetch(tiny_recipe, lock_of(tiny_recipe, pool.add("a", {})), print)


def test_a_version_that_the_mirror_dropped_names_the_command(cache, pool, tiny_recipe, lock_of):
    kept, dropped = pool.add("a", {}), pool.add("b", {})
    pool.path(dropped).unlink()
    wanted = r"the mirror no longer has b 1\+2, .* run `blkproof image lock tiny`"
    with pytest.raises(StaleLockError, match=wanted):
        fetch(tiny_recipe, lock_of(tiny_recipe, kept, dropped), print)
    assert [path.name for path in (cache / "debs").iterdir()] == [f"{kept.sha256}.deb"]


def test_another_file_than_the_locked_one_is_refused(cache, pool, tiny_recipe, lock_of):
    package = pool.add("a", {"bin/a": b"x"})
    data = bytearray(pool.path(package).read_bytes())
    data[-1] ^= 1
    pool.path(package).write_bytes(data)
    with pytest.raises(FetchError, match="sha256 is not the one in the lock of image tiny"):
        fetch(tiny_recipe, lock_of(tiny_recipe, package), print)
    assert list((cache / "debs").iterdir()) == []


def test_a_file_that_went_bad_in_the_cache_is_fetched_again(pool, tiny_recipe, lock_of):
    lock = lock_of(tiny_recipe, pool.add("a", {"bin/a": b"x"}))
    path = fetch(tiny_recipe, lock, print)["a"]
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert fetch(tiny_recipe, lock, print)["a"].read_bytes() == good


def test_packages_of_any_suite_meet_in_one_usr(pool, tiny_recipe, lock_of, source_package):
    older = pool.add("a", {"bin/a": b"a", "lib/modules/a": b"a"})
    newer = pool.add("b", {"usr/bin/b": b"b", "usr/lib64/b": b"b"})
    tree = unpack(tiny_recipe, lock_of(tiny_recipe, older, newer, source_package), print)
    for path in ("bin/a", "usr/bin/a", "bin/b", "usr/bin/b", "usr/lib/modules/a", "lib64/b"):
        assert (tree / path).read_bytes() == path[-1].encode()


def test_unpacking_takes_all_files_and_only_the_drivers_of_the_source(
    pool, tiny_recipe, lock_of, source_package
):
    package = pool.add("a", {"bin/a": b"x", "usr/share/doc/a": b"never needed"})
    tree = unpack(tiny_recipe, lock_of(tiny_recipe, package, source_package), print)
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    driver_source = "driver-source/drivers/block"
    assert files == {"usr/bin/a", f"{driver_source}/xen-blkfront.c", f"{driver_source}/xen-blkback/a.c"}


def test_a_package_that_cannot_be_unpacked_leaves_no_tree(cache, pool, tiny_recipe, lock_of, source_package):
    package = pool.add("a", {})
    broken = pool.path(package)
    broken.write_bytes(broken.read_bytes()[:100])
    sha256 = hashlib.sha256(broken.read_bytes()).hexdigest()
    lock = lock_of(tiny_recipe, package.model_copy(update={"sha256": sha256}), source_package)
    with pytest.raises(PackageError, match="a: dpkg-deb failed while unpacking"):
        unpack(tiny_recipe, lock, print)
    assert list((cache / "trees").iterdir()) == []


def test_a_recipe_whose_source_is_in_no_package(pool, tiny_recipe, lock_of):
    with pytest.raises(PackageError, match=r"key boot\.source: no package linux-source-0"):
        unpack(tiny_recipe, lock_of(tiny_recipe, pool.add("a", {})), print)
