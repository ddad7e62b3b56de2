import pytest
from blkproof.images.errors import LockError
from blkproof.images.lock import LockedPackage, read_lock, write_lock
from blkproof.images.recipe import known_recipes, load_recipe


@pytest.fixture
def package():
    return LockedPackage(
        name="a", version='1:2+"3"', arch="all", filename="pool/a.deb", size=7, sha256="0" * 64
    )


def test_a_lock_reads_back_as_it_was_written(tiny_recipe, lock_of, package):
    lock = lock_of(tiny_recipe, package)
    write_lock(lock, tiny_recipe.lock_path)
    assert read_lock(tiny_recipe.lock_path, tiny_recipe) == lock
    assert lock.version("a") == '1:2+"3"'


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_that_we_ship_has_a_lock_that_fits(name):
    recipe = load_recipe(name)
    lock = read_lock(recipe.lock_path, recipe)
    assert {package.name for package in lock.packages} >= set(recipe.packages.all())
    assert [package.name for package in lock.packages] == sorted({package.name for package in lock.packages})


def test_a_missing_lock_names_the_command(tiny_recipe):
    with pytest.raises(LockError, match="no lock for image tiny: run `blkproof image lock tiny`"):
        read_lock(tiny_recipe.lock_path, tiny_recipe)


def test_a_broken_lock_names_file_key_and_command(tiny_recipe, lock_of, package):
    write_lock(lock_of(tiny_recipe, package), tiny_recipe.lock_path)
    text = tiny_recipe.lock_path.read_text()
    tiny_recipe.lock_path.write_text(text.replace("size = 7", 'size = "much"'))
    with pytest.raises(
        LockError, match=r"tiny\.lock\.toml: key packages\.0\.size: .*integer.*image lock tiny"
    ):
        read_lock(tiny_recipe.lock_path, tiny_recipe)


def test_a_lock_cut_off_is_no_lock(tiny_recipe, lock_of, package):
    write_lock(lock_of(tiny_recipe, package), tiny_recipe.lock_path)
    tiny_recipe.lock_path.write_text(tiny_recipe.lock_path.read_text()[:-10])
    with pytest.raises(LockError, match="cannot be read as a lock"):
        read_lock(tiny_recipe.lock_path, tiny_recipe)


def test_a_lock_made_before_the_recipe_changed_is_refused(tiny_recipe, lock_of, package):
    older = lock_of(tiny_recipe, package).model_copy(update={"requested": ("a",)})
    write_lock(older, tiny_recipe.lock_path)
    with pytest.raises(LockError, match=r"made for another version of tiny\.toml"):
        read_lock(tiny_recipe.lock_path, tiny_recipe)


def test_the_digest_changes_with_a_package(tiny_recipe, lock_of, package):
    other = package.model_copy(update={"sha256": "1" * 64})
    assert lock_of(tiny_recipe, package).digest != lock_of(tiny_recipe, other).digest


def test_asking_for_a_package_that_is_not_locked(tiny_recipe, lock_of, package):
    with pytest.raises(LockError, match="no package b"):
        lock_of(tiny_recipe, package).version("b")
