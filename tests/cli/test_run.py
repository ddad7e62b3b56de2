"""``blkproof run`` where the host or the capture fails: one run ends, the others and the report stay.

The session is a fake here: such failures can't be had otherwise.
"""

import json
from types import SimpleNamespace

import click
import pytest
from blkproof.cli import exits
from blkproof.cli.main import cli
from blkproof.harness import accel, session
from blkproof.harness.errors import HostError
from blkproof.harness.host import Accelerator
from blkproof.harness.scenario import list_scenarios
from blkproof.images import build, drivers
from blkproof.traces.capture import seal
from click.testing import CliRunner


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Return a function that runs the command with a session of the test's own."""
    monkeypatch.setattr(build, "build", lambda _recipe, **_: SimpleNamespace(name="an image", digest="0123"))
    monkeypatch.setattr(accel, "probe", lambda _image, _want: Accelerator("tcg", "a test", "max", 1.0))

    def run_it(fake, *args):
        monkeypatch.setattr(session, "run", fake)
        out = tmp_path / "runs"
        done = CliRunner().invoke(cli, ["run", *args, "--out", str(out), "--json"], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.return_value, [json.loads(line) for line in done.stdout.splitlines()], out

    return run_it


def test_a_host_that_fails_ends_its_run_alone(invoke):
    tried = []

    def fake(_scenario, settings, **_):
        tried.append(settings)
        raise HostError("memory: a machine needs more")

    code, runs, out = invoke(fake, "basic", "--set", "persistent=on,off")
    assert tried == [{"persistent": "on"}, {"persistent": "off"}]
    assert code == exits.HARNESS
    assert [run["outcome"] for run in runs] == ["harness", "harness"]
    assert runs[0]["reasons"] == ["memory: a machine needs more"]
    assert [run["settings"]["persistent"] for run in runs] == ["on", "off"]
    assert "a machine needs more" in (out / "report.html").read_text()


def test_what_was_recorded_before_a_failure_is_judged(invoke):
    def fake(_scenario, settings, *, out, **_):
        out.mkdir()
        seal(
            out,
            {"scenario": "basic", "settings": settings, "ended": "harness", "notes": ["the disk is full"]},
        )
        raise HostError("the disk is full")

    code, (run,), out = invoke(fake, "basic")
    assert code == exits.HARNESS
    assert run["capture"] == str(out / "basic")
    assert run["outcome"] == "harness"


def test_a_capture_that_cannot_be_read_loses_no_other_run(invoke):
    def fake(_scenario, _settings, *, out, **_):
        out.mkdir()
        (out / "manifest.json").write_text("{")

    code, runs, _ = invoke(fake, "basic", "--set", "indirect=on,off")
    assert code == exits.HARNESS
    assert [run["outcome"] for run in runs] == ["harness", "harness"]
    assert all("manifest.json" in run["reasons"][0] for run in runs)


@pytest.fixture
def own_driver(monkeypatch, tmp_path):
    """Return the options for a driver of one's own, which is not built."""
    driver = drivers.Driver(tmp_path / "a.ko", tmp_path / "b.ko", {"patches": [{"file": "my.patch"}]})
    monkeypatch.setattr("blkproof.cli.run.built", lambda *_: {"xen_blkfront": driver})
    patch = tmp_path / "my.patch"
    patch.write_text(
        "--- a/drivers/block/xen-blkfront.c\n+++ b/drivers/block/xen-blkfront.c\n@@ -1 +1 @@\n-a\n+b\n"
    )
    return ["--blkfront-patch", str(patch)]


def test_a_comparison_takes_the_sides_in_turn(invoke, own_driver):
    tried = []

    def fake(scenario, settings, *, out, drivers, **_):
        tried.append((scenario.name, settings, out.name, sorted(drivers)))
        raise HostError("not today")

    more = ["--set", "persistent=off", "--compare", "--rounds", "2"]
    code, runs, _ = invoke(fake, "basic", *own_driver, *more)
    assert [(name, taken) for *_, name, taken in tried] == [
        ("basic-persistent=off-without-1", []),
        ("basic-persistent=off-with-1", ["xen_blkfront"]),
        ("basic-persistent=off-without-2", []),
        ("basic-persistent=off-with-2", ["xen_blkfront"]),
    ]
    assert code == exits.HARNESS
    assert [bool(run["compare"]) for run in runs] == [False, True, False, True]


def ended(how, only_with_drivers):
    """Make a session whose runs end so: those on one side, the others as crashes."""

    def fake(scenario, settings, *, out, drivers, **_):
        made_of = {name: dict(driver.made_of) for name, driver in drivers.items()}
        out.mkdir()
        end = how if bool(drivers) == only_with_drivers else "guest-panic"
        run = {
            "scenario": scenario.name,
            "settings": settings,
            "variants": made_of,
            "ended": end,
            "notes": [],
        }
        seal(out, run)

    return fake


@pytest.mark.parametrize(
    ("how", "with_drivers", "code"),
    [
        ("ok", True, exits.INCONCLUSIVE),  # the unchanged driver crashes, the other has but an empty capture
        ("ok", False, exits.CRASH),
        ("stall", True, exits.HARNESS),
        ("harness", False, exits.CRASH),
    ],
)
def test_the_runs_with_the_driver_name_the_exit_code(invoke, own_driver, how, with_drivers, code):
    assert invoke(ended(how, with_drivers), "basic", *own_driver, "--compare", "--rounds", "1")[0] == code


def test_a_run_without_the_driver_that_could_not_be_carried_out_counts(invoke, own_driver):
    def fake(scenario, settings, *, out, drivers, **more):
        if not drivers:
            raise HostError("not today")
        ended("ok", True)(scenario, settings, out=out, drivers=drivers, **more)

    assert invoke(fake, "basic", *own_driver, "--compare", "--rounds", "1")[0] == exits.HARNESS


def test_all_is_every_scenario_once(invoke):
    tried = []

    def fake(scenario, *_, **__):
        tried.append(scenario.name)
        raise HostError("not today")

    invoke(fake, "basic", "all")
    assert sorted(tried) == sorted(scenario.name for scenario in list_scenarios())
    assert tried[0] == "basic"


def test_rounds_are_captures_of_their_own(invoke):
    tried = []

    def fake(*_, out, **__):
        tried.append(out.name)
        raise HostError("not today")

    invoke(fake, "basic", "--rounds", "2")
    assert tried == ["basic-1", "basic-2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just words", "no patch"),
        (
            "--- a/drivers/block/xen-blkfront.c\n+++ b/drivers/block/xen-blkfront.c\n@@ -1 +1 @@\n-a\n",
            "malformed",
        ),
    ],
)
def test_a_file_that_is_no_patch_costs_no_time(tmp_path, text, says):
    (tmp_path / "bad.patch").write_text(text)
    with pytest.raises(click.ClickException, match=rf"bad\.patch: {says}"):
        CliRunner().invoke(
            cli,
            ["run", "basic", "--blkback-patch", str(tmp_path / "bad.patch")],
            standalone_mode=False,
            catch_exceptions=False,
        )


def test_to_compare_with_stock_drivers_is_refused(own_driver):
    done = CliRunner().invoke(cli, ["run", "basic", "--compare", "--drivers", "stock", *own_driver])
    assert done.exit_code == 2
    assert "leave out --drivers" in done.output


def test_to_compare_takes_a_driver_to_compare(tmp_path):
    done = CliRunner().invoke(cli, ["run", "basic", "--compare", "--out", str(tmp_path / "runs")])
    assert done.exit_code == 2
    assert "--compare: with what?" in done.output
    assert not (tmp_path / "runs").exists()


def test_captures_are_never_overwritten(tmp_path):
    (tmp_path / "something").touch()
    done = CliRunner().invoke(cli, ["run", "basic", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "never overwritten" in done.output
