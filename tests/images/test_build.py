import io

import pytest
from blkproof.images import build as building
from blkproof.images.build import build, list_images, relock
from blkproof.images.errors import SpaceError, StaleLockError
from blkproof.images.lock import read_lock, write_lock
from blkproof.images.pruning import KEPT
from elftools.elf.elffile import ELFFile


@pytest.fixture(scope="session")
def image(debian12):
    return build(debian12, progress=print)


@pytest.fixture
def other_cache(cache, debian12_tree):
    """Give the test a cache of its own that has the unpacked packages, and nothing built from them."""
    (cache / "trees").mkdir(parents=True)
    (cache / "trees" / debian12_tree.name).symlink_to(debian12_tree)
    return cache


def test_an_image_has_all_that_a_machine_is_started_from(image):
    assert image.xen.read_bytes()[:4] == b"\x7fELF"
    assert image.kernel.read_bytes()[:4] == b"\x7fELF"
    assert image.btf.read_bytes()[:2] == b"\x9f\xeb", "BTF's magic number, little-endian"
    assert image.guest_initramfs.read_bytes() in image.initramfs.read_bytes()
    assert image.ssh_key.is_file()
    assert image.host_key.read_text().startswith("ssh-ed25519 ")
    for module in image.modules.values():
        assert ELFFile(io.BytesIO(module.read_bytes())).has_dwarf_info()
    assert image.versions["xen"].startswith("4.17.")
    assert image.versions["linux"].startswith("6.1.")
    assert image in list_images()


def test_a_built_image_needs_no_network_and_says_nothing(image, debian12, monkeypatch):
    monkeypatch.setenv("BLKPROOF_MIRROR", "http://127.0.0.1:1")
    assert build(debian12, progress=pytest.fail) == image


def test_the_same_inputs_give_the_same_bytes_but_keys_of_their_own(image, debian12, other_cache):
    old = [other_cache / "images" / f"old{number}" for number in range(KEPT["images"] + 2)]
    for path in old:
        path.mkdir(parents=True)
    again = build(debian12, progress=print)
    assert sum(path.exists() for path in old) == KEPT["images"], "a new image makes old ones go"
    assert again.root != image.root
    assert again.contents == image.contents
    assert again.digest == image.digest
    assert again.ssh_key.read_bytes() != image.ssh_key.read_bytes()


@pytest.mark.usefixtures("other_cache")
def test_without_memory_the_build_does_not_begin(debian12, monkeypatch):
    monkeypatch.setattr(building, "_BUILD_MEMORY", 1 << 60)
    with pytest.raises(SpaceError, match="building image debian12 needs"):
        build(debian12, progress=print)


def test_the_digest_follows_recipe_and_lock(debian12, tmp_path):
    lock = read_lock(debian12.lock_path, debian12)
    plain = building._digest(debian12, lock)
    assert building._digest(debian12.model_copy(update={"path": tmp_path / "moved"}), lock) == plain
    assert building._digest(debian12.model_copy(update={"suite": "sid"}), lock) != plain
    assert building._digest(debian12, lock.model_copy(update={"packages": lock.packages[1:]})) != plain


class Mirror:
    """Stands for a mirror that has moved on from the committed lock."""

    def __init__(self, monkeypatch, fresh):
        self.built, self.resolved, self.fresh = [], 0, fresh
        monkeypatch.setattr(building, "_build_locked", self.build)
        monkeypatch.setattr(building, "resolve", self.resolve)

    def build(self, _recipe, lock, _progress):
        self.built.append(lock)
        if lock != self.fresh:
            raise StaleLockError("the mirror moved on")
        return "image"

    def resolve(self, _recipe, _progress):
        self.resolved += 1
        return self.fresh


@pytest.fixture
def moved_on(monkeypatch, tiny_recipe, pool, lock_of):
    write_lock(lock_of(tiny_recipe, pool.add("a", {})), tiny_recipe.lock_path)
    return Mirror(monkeypatch, lock_of(tiny_recipe, pool.add("b", {})))


@pytest.mark.usefixtures("cache")
def test_a_stale_lock_is_an_error_unless_one_asks_for_more(moved_on, tiny_recipe):
    with pytest.raises(StaleLockError):
        build(tiny_recipe, progress=print)
    assert moved_on.resolved == 0


@pytest.mark.usefixtures("cache", "moved_on")
def test_a_stale_lock_can_be_made_anew_loudly_and_the_committed_one_stays(tiny_recipe):
    committed = tiny_recipe.lock_path.read_text()
    said = []
    assert build(tiny_recipe, progress=said.append, relock_if_stale=True) == "image"
    assert "moved on; making a lock of our own" in said[0]
    assert tiny_recipe.lock_path.read_text() == committed


@pytest.mark.usefixtures("cache")
def test_later_builds_use_the_new_lock_without_asking_the_mirror(moved_on, tiny_recipe):
    build(tiny_recipe, progress=print, relock_if_stale=True)
    assert build(tiny_recipe, progress=pytest.fail) == "image"
    assert moved_on.resolved == 1
    assert moved_on.built[-1] == moved_on.fresh


@pytest.mark.usefixtures("cache")
def test_locking_replaces_the_committed_lock(moved_on, tiny_recipe):
    assert relock(tiny_recipe, progress=print) == moved_on.fresh
    assert read_lock(tiny_recipe.lock_path, tiny_recipe) == moved_on.fresh
