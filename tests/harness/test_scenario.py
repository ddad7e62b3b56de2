"""Scenarios and the settings that a user can switch."""

import pytest
from blkproof.harness.errors import EXIT_USAGE, ScenarioError
from blkproof.harness.scenario import list_scenarios, load_scenario
from blkproof.harness.settings import SETTINGS, module_parameters
from pydantic import ValidationError

WHOLE = """
description = "one"
seed = 7
[settings]
persistent = "off"
[fio]
rw = "randwrite"
iodepth = 4
"""


@pytest.fixture
def scenario(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load_scenario(path)

    return write


@pytest.mark.parametrize("found", list_scenarios(), ids=lambda found: found.name)
def test_every_scenario_that_comes_along_is_whole(found):
    assert load_scenario(found.name) == found
    assert "\n" not in found.description
    assert "verify=" in found.job("/dev/xvda")
    assert set(found.resolve({})) == set(SETTINGS)


def test_basic_comes_along():
    assert "basic" in [found.name for found in list_scenarios()]


def test_what_is_asked_goes_before_the_scenario_and_that_before_the_default(scenario):
    mine = scenario(WHOLE)
    assert mine.resolve({})["persistent"] == "off"
    assert mine.resolve({"persistent": "on"})["persistent"] == "on"
    assert mine.resolve({})["indirect"] == SETTINGS["indirect"].default


def test_the_job_is_for_the_disk_and_follows_the_seed(scenario):
    lines = scenario(WHOLE).job("/dev/xvdz").splitlines()
    assert lines[:-2] == ["[mine]", "filename=/dev/xvdz", "randseed=7", "rw=randwrite", "iodepth=4"]


def test_settings_and_load_may_be_left_at_their_defaults(scenario):
    mine = scenario('description = "d"\nseed = 1\n[fio]\nrw = "read"\n')
    assert mine.resolve({}) == {name: setting.default for name, setting in SETTINGS.items()}


def test_a_scenario_is_frozen(scenario):
    mine = scenario(WHOLE)
    with pytest.raises(ValidationError):
        mine.seed = 8
    with pytest.raises(TypeError):
        mine.settings["persistent"] = "on"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = ", "mine.toml: no TOML: "),
        (WHOLE + "[load]\n", "mine.toml: load: no such key; there are description, seed, settings, fio"),
        (WHOLE.replace("seed = 7", ""), "mine.toml: seed: Field required"),
        (WHOLE.replace("7", '"seven"'), "mine.toml: seed: .*valid integer"),
        (WHOLE.replace("7", "-1"), "mine.toml: seed: .*greater than or equal to 0"),
        (
            WHOLE.replace("persistent", "persistant"),
            "mine.toml: settings: no setting 'persistant'; there are",
        ),
        (
            WHOLE.replace('"off"', '"maybe"'),
            "mine.toml: settings: persistent can't be 'maybe'; it takes on, off",
        ),
        (WHOLE.replace('"off"', "true"), "mine.toml: settings.persistent: .*valid string"),
        (WHOLE + 'filename = "/etc/passwd"\n', "mine.toml: fio: filename is set by blkproof itself"),
        (WHOLE + 'rate = "1\\nfilename=/x"\n', "mine.toml: fio: rate is no single option"),
        ("\ufeff\x00", "mine.toml: no TOML"),
    ],
)
def test_a_broken_file_is_named_with_its_key(scenario, text, says):
    with pytest.raises(ScenarioError, match=says) as caught:
        scenario(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)


def test_a_scenario_that_there_is_not_is_answered_with_those_that_there_are():
    with pytest.raises(ScenarioError, match=r"no scenario 'bassic'; there are basic, "):
        load_scenario("bassic")
    with pytest.raises(ScenarioError, match=r"nowhere\.toml: No such file"):
        load_scenario("nowhere.toml")
    with pytest.raises(ScenarioError, match=r"no scenario '\.\./basic'"):
        load_scenario("../basic")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"persistence": "on"}, "scenario basic: no setting 'persistence'; there are persistent, indirect"),
        ({"indirect": "11"}, "indirect can't be '11'; it takes on, off, 12 to 256"),
        ({"ring_order": "5"}, "ring_order can't be '5'; it takes 0 to 4"),
        ({"max_persistent_grants": "\u0663"}, "max_persistent_grants can't be"),
        ({"max_persistent_grants": "-1"}, "max_persistent_grants can't be"),
    ],
)
def test_a_setting_or_value_that_there_is_not(asked, says):
    with pytest.raises(ScenarioError, match=says):
        load_scenario("basic").resolve(asked)


def test_a_job_marks_where_it_begins_and_ends():
    mine = load_scenario("basic").model_copy(update={"fio": {"exec_prerun": "true"}})
    lines = mine.job("/dev/xvda").splitlines()
    marker = "/sys/kernel/tracing/trace_marker || :"
    assert f"exec_prerun=true && (echo blkproof:io > {marker})" in lines
    assert f"exec_postrun=echo blkproof:io-done > {marker}" in lines


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_a_value(name):
    assert SETTINGS[name].accepts(SETTINGS[name].default)


@pytest.mark.parametrize(
    ("settings", "backend", "frontend"),
    [
        ({"persistent": "on"}, "feature_persistent=Y", "feature_persistent=Y"),
        ({"persistent": "off"}, "feature_persistent=N", "feature_persistent=N"),
        ({"persistent": "backend-only"}, "feature_persistent=Y", "feature_persistent=N"),
        ({"persistent": "frontend-only"}, "feature_persistent=N", "feature_persistent=Y"),
        ({"indirect": "on"}, "", ""),
        ({"indirect": "off"}, "", "max_indirect_segments=0"),
        ({"indirect": "064"}, "", "max_indirect_segments=64"),
        ({"max_persistent_grants": "128"}, "max_persistent_grants=128", ""),
        ({"ring_order": "2"}, "max_ring_page_order=2", "max_ring_page_order=2"),
        ({"queues": "2"}, "max_queues=2", "max_queues=2"),
        ({"dom0_vcpus": "2"}, "", ""),
        (
            {"persistent": "off", "indirect": "off"},
            "feature_persistent=N",
            "feature_persistent=N max_indirect_segments=0",
        ),
    ],
)
def test_what_each_side_is_loaded_with(settings, backend, frontend):
    assert module_parameters(settings, "backend") == backend
    assert module_parameters(settings, "frontend") == frontend
