import pytest
from blkproof.images.errors import RecipeError
from blkproof.images.recipe import known_recipes, load_recipe


def test_every_recipe_that_we_ship_loads_under_its_own_name():
    assert "debian12" in known_recipes()
    for name in known_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.lock_path.name == f"{name}.lock.toml"


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"no image recipe debian99: known are .*debian12"):
        load_recipe("debian99")


def test_broken_toml_names_file_and_place(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("suite = \n")
    with pytest.raises(RecipeError, match=r"mine\.toml: not valid TOML: .*line 1"):
        load_recipe(path)


def test_wrong_type_names_file_key_and_expected_type(tiny_recipe, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(tiny_recipe.path.read_text().replace('suite = "bookworm"', "suite = 12"))
    with pytest.raises(RecipeError, match=r"bad\.toml: key suite: .*valid string"):
        load_recipe(path)


def test_missing_and_unknown_keys_are_both_told(tiny_recipe, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(tiny_recipe.path.read_text().replace("compiler =", "compilr ="))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "key driver.compiler: Field required" in str(caught.value)
    assert "key driver.compilr: Extra inputs" in str(caught.value)


def test_empty_package_list_is_refused(tiny_recipe, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(tiny_recipe.path.read_text().replace('xen = ["a"]', "xen = []"))
    with pytest.raises(RecipeError, match=r"key packages\.xen: "):
        load_recipe(path)


def test_unreadable_file_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.toml: cannot be read: No such file"):
        load_recipe(tmp_path / "absent.toml")
