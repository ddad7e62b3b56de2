"""``blkproof run`` where the host or the capture fails: one run ends, the others and the report stay.

The session is a fake here: such failures can't be had otherwise.
"""

import json

import pytest
from blkproof.cli import exits
from blkproof.cli.main import cli
from blkproof.harness import accel, session
from blkproof.harness.errors import HostError
from blkproof.harness.host import Accelerator
from blkproof.images import build
from blkproof.traces.capture import seal
from click.testing import CliRunner


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Return a function that runs the command with a session of the test's own."""
    monkeypatch.setattr(build, "build", lambda _recipe, **_: None)
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
    assert runs[0]["settings"] == {"persistent": "on"}
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


def test_captures_are_never_overwritten(tmp_path):
    (tmp_path / "something").touch()
    done = CliRunner().invoke(cli, ["run", "basic", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "never overwritten" in done.output
