"""The command line on a real Xen: the main job, a fault in the real driver, and Ctrl-C."""

import base64
import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from blkproof.analysis.registry import RULES
from blkproof.cli import exits
from blkproof.images.build import package_tree
from blkproof.images.recipe import load_recipe
from blkproof.traces.capture import Capture
from blkproof.traces.table import EventTable

pytestmark = pytest.mark.live

BLKPROOF = Path(sys.executable).with_name("blkproof")
BLKBACK = "drivers/block/xen-blkback/blkback.c"


def blkproof(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLKPROOF, *args], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("matrix") / "runs"
    done = blkproof(
        "run", "basic", "--set", "persistent=on,off", "--set", "indirect=on,off", "--out", out, "--json"
    )
    assert done.returncode == exits.PASS, done.stdout + done.stderr
    return out, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_four_runs_pass_and_every_rule_decided_something(matrix):
    _, runs = matrix
    assert [run["outcome"] for run in runs] == ["pass"] * 4
    for run in runs:
        assert run["requests"] > 1000
        assert run["rules"].keys() == {rule.id for rule in RULES.values() if not rule.undecidable}
        for name, result in run["rules"].items():
            assert result["decided"] == result["checked"], (name, result)
        decided = {name for name, result in run["rules"].items() if result["decided"]}
        assert {"R9", "R10", "R18", "R19", "R20", "R21", "R22", "R29", "R30", "R31", "R39", "R40"} <= decided


def test_the_stock_drivers_of_debian_are_seen_whole(matrix, tmp_path: Path):
    """The same load gives the same events as the rebuilt drivers, and every rule decides everything."""
    done = blkproof(
        *("run", "basic", "--drivers", "stock", "--set", "persistent=on,off"),
        *("--out", tmp_path / "runs", "--json"),
    )
    assert done.returncode == exits.PASS, done.stdout + done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    _, rebuilt = matrix
    for run in runs:
        assert run["drivers"].keys() == {"xen_blkback", "xen_blkfront"}
        assert all(made_of["stock"]["differs"] is None for made_of in run["drivers"].values())
        for name, result in run["rules"].items():
            assert result["decided"] == result["checked"], (name, result)
        (other,) = (each for each in rebuilt if each["settings"] == {**each["settings"], **run["settings"]})
        assert run["settings"] == other["settings"]
        tables = [EventTable.build(Capture.open(Path(each["capture"]))) for each in (run, other)]
        for event in ("be_request", "be_response", "fe_queue", "fe_push", "fe_recycle", "be_get", "be_put"):
            assert tables[0].count(event) == tables[1].count(event), event


def test_the_features_show_in_the_counts(matrix):
    """Persistent grants save maps; indirect descriptors carry more segments in fewer requests."""
    _, runs = matrix
    by_setting = {(run["settings"]["persistent"], run["settings"]["indirect"]): run for run in runs}
    maps = {key: run["metrics"]["maps_per_request"] for key, run in by_setting.items()}
    assert maps["on", "on"] < maps["off", "on"] / 10
    assert maps["on", "off"] < maps["off", "off"] / 10
    for persistent in ("on", "off"):
        assert by_setting[persistent, "on"]["requests"] < by_setting[persistent, "off"]["requests"]


def test_every_result_says_which_accelerator_and_why(matrix):
    _, runs = matrix
    for run in runs:
        assert run["accelerator"] in {"kvm", "tcg"}
        assert run["accelerator_why"]


def test_captures_are_judged_the_same_again(matrix):
    out, runs = matrix
    done = blkproof("check", "--json", *(run["capture"] for run in runs))
    assert done.returncode == exits.PASS
    again = [json.loads(line) for line in done.stdout.splitlines()]
    assert again == runs
    assert (out / "report.html").stat().st_size > 10_000
    assert ET.parse(out / "junit.xml").getroot().findall("testsuite")


def test_same_captures_same_report(matrix, tmp_path: Path):
    _, runs = matrix
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        assert blkproof("report", *(run["capture"] for run in runs), "-o", page).returncode == exits.PASS
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_tracing_costs_is_measured_and_stands_in_later_captures(tmp_path: Path):
    done = blkproof("cost", "basic", "--json")
    assert done.returncode == exits.PASS, done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines())
    assert found["requests"] > 1000
    assert 0 < found["off"] < found["on"]
    assert found["parts"].keys() == {"xen", "dom0", "guest"}
    # What they cost apart is what they cost together, but for what differs between any two runs.
    assert sum(found["parts"].values()) == pytest.approx(found["on"] - found["off"], rel=0.1)
    done = blkproof("run", "basic", "--out", tmp_path / "runs", "--json")
    assert json.loads(done.stdout)["tracing_cost"]["on"] == found["on"]


def test_every_event_can_be_exported(matrix, tmp_path: Path):
    _, runs = matrix
    target = tmp_path / "events.parquet"
    assert blkproof("export", runs[0]["capture"], "-o", target).returncode == exits.PASS
    events = pd.read_parquet(target)
    assert events["tsc"].is_monotonic_increasing
    assert (events["event"] == "be_request").sum() == runs[0]["requests"]


def test_explain_tells_what_was_looked_at(matrix):
    _, runs = matrix
    done = blkproof("explain", runs[0]["capture"])
    assert done.returncode == exits.PASS
    assert "R40" in done.stdout


def test_each_scenario_shows_what_it_is_for(tmp_path: Path):
    done = blkproof("run", "persistent", "indirect", "queues", "--out", tmp_path / "runs", "--json")
    assert done.returncode == exits.PASS, done.stdout + done.stderr
    kept, large, queues = (json.loads(line)["metrics"] for line in done.stdout.splitlines())
    assert 0 < kept["maps"] < kept["hits"]
    assert {"1", "32"} <= set(kept["segments"])
    assert max(map(int, large["segments"])) == 256
    assert queues["nr_ents"] == 4 * 32


def edit(*changes: tuple[str, str]) -> Iterator[str]:
    """Make a diff of each edit of the backend's source, as this image has it, each on top of the last."""
    text = (package_tree(load_recipe("debian12"), progress=print) / "driver-source" / BLKBACK).read_text()
    for old, new in changes:
        assert text.count(old) == 1
        before, text = text, text.replace(old, new)
        lines = [version.splitlines(keepends=True) for version in (before, text)]
        yield "".join(difflib.unified_diff(*lines, f"a/{BLKBACK}", f"b/{BLKBACK}"))


def mbox(tmp_path: Path, *letters: str) -> Path:
    """Write a series of mails, as they come from a mail server."""
    mails = [
        f"From 0123 Mon Sep 17 00:00:00 2001\nFrom: a@example.org\nSubject: [PATCH {number}] no. {number}\n"
        f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(letter.encode()).decode()}\n"
        for number, letter in enumerate(letters)
    ]
    path = tmp_path / "series.mbox"
    path.write_text("".join(mails))
    return path


def compared(*args: str | Path, code: int) -> tuple[dict, dict]:
    """Run `basic` without and with a driver of one's own; return both runs."""
    done = blkproof("run", "basic", "--compare", "--rounds", "1", "--json", *args)
    assert done.returncode == code, done.stdout + done.stderr
    without, own = (json.loads(line) for line in done.stdout.splitlines())
    return without, own


def test_a_fault_in_the_real_driver_is_found_and_explained(tmp_path: Path):
    """Persistent grants mapped read-only, as in the first days of the feature: the second of a series."""
    harmless = ("!use_persistent_gnts && ro", "(!use_persistent_gnts) && ro")
    series = mbox(tmp_path, "why", *edit(harmless, ("(!use_persistent_gnts) && ro", "ro")))
    plain, run = compared("--blkback-patch", series, "--out", tmp_path / "runs", code=exits.FAIL)
    assert (plain["outcome"], run["outcome"]) == ("pass", "fail")
    assert "R40" in {finding["rule"] for finding in run["findings"]}
    assert run["compare"]["broken"]["without"] == []
    assert "R40" in run["compare"]["broken"]["with"]
    patches = run["drivers"]["xen_blkback"]["patches"]
    assert [patch["subject"] for patch in patches] == ["no. 1", "no. 2"]
    told = blkproof("explain", run["capture"])
    assert told.returncode == exits.FAIL
    assert "However" in told.stdout
    assert "contradiction" in told.stdout


def test_a_tree_of_ones_own_with_a_harmless_edit_changes_no_verdict(tmp_path: Path):
    tree = tmp_path / "linux"
    shutil.copytree(package_tree(load_recipe("debian12"), progress=print) / "driver-source", tree)
    source = tree / BLKBACK
    source.write_text(f"/* another first line */\n{source.read_text()}")
    plain, run = compared("--blkback-src", tree, "--out", tmp_path / "runs", code=exits.PASS)
    assert (plain["drivers"], run["drivers"]["xen_blkback"]["source"]["directory"]) == ({}, "linux")
    for key in ("requests", "segments_per_request", "indirect_share"):
        figure = run["compare"]["figures"][key]
        assert figure["with"] == figure["without"], "the load is the same each time"
    modules = [Capture.open(Path(each["capture"])).run["drivers"]["xen_blkback"] for each in (plain, run)]
    assert modules[0] != modules[1]


def test_a_patch_that_does_not_apply_is_named(tmp_path: Path):
    patch = tmp_path / "stale.patch"
    patch.write_text(f"--- a/{BLKBACK}\n+++ b/{BLKBACK}\n@@ -1,1 +1,1 @@\n-no such line\n+another\n")
    done = blkproof("run", "basic", "--blkback-patch", patch, "--out", tmp_path / "runs")
    assert done.returncode == exits.HARNESS
    assert "stale.patch" in done.stderr
    assert "Traceback" not in done.stderr


def machines() -> set[str]:
    """Return the processes that are a QEMU of ours."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile
        if command[0].endswith(b"qemu-system-x86_64"):
            found.add(process.name)
    return found


def test_ctrl_c_leaves_no_machine(tmp_path: Path):
    before = machines()
    process = subprocess.Popen(
        # A suite that runs in the background ignores Ctrl-C, and so would its children.
        ["env", "--default-signal=INT", BLKPROOF, "run", "basic", "--out", tmp_path / "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    for line in process.stderr:
        if "load" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    process.stderr.read()
    assert process.wait() == exits.INTERRUPTED
    while machines() - before:  # the warden ends it; if it did not, the suite's own limit would show it
        time.sleep(0.05)
