"""Whole runs on a real Xen: that everything is recorded, and what becomes of runs that go wrong."""

import os
import signal
from contextlib import contextmanager

import pytest
from blkproof.analysis.check import check, examine
from blkproof.analysis.verdict import Outcome
from blkproof.analysis.wire import INDIRECT
from blkproof.harness import recording, session
from blkproof.harness.accel import probe
from blkproof.harness.errors import SessionError
from blkproof.harness.parking import preparation
from blkproof.harness.pool import Pool
from blkproof.harness.probes.compiler import Definition
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.scenario import load_scenario
from blkproof.images.drivers import Driver
from blkproof.traces.capture import Capture
from blkproof.traces.events import EVENTS
from blkproof.traces.table import EventTable

pytestmark = pytest.mark.live

ALWAYS = {
    "dom0": "be_request be_indirect be_map be_map_ret be_free_persistent be_submit be_io_end"
    " be_response be_disconnect be_connect be_thread_start be_thread_stop"
    " be_fe_changed gt_map gt_unmap gt_map_ring gt_unmap_ring gt_unmap_async"
    " xs_write xs_switch ev_notify ev_eoi message mark",
    "guest1": "fe_queue fe_page fe_push fe_irq fe_response fe_connect fe_free fe_be_changed"
    " gt_grant gt_try_end gt_end gt_put_free xs_write xs_switch ev_notify ev_eoi message"
    " mark",
}
PERSISTENT = "be_get be_get_ret be_add be_add_ret be_put be_purge be_free_persistent"
SIDES = {"dom0": "backend", "guest1": "frontend"}

FAULT = """
description = "something happens when the load begins"
seed = 1
stall_s = 1
[fio]
rw = "randwrite"
bs = "4k"
number_ios = 10
exec_prerun = "sh -c '{command}'"
"""

LARGE = """
description = "blocks of 1 MiB"
seed = 1
[fio]
ioengine = "libaio"
direct = 1
iodepth = 4
rw = "randwrite"
bs = "1m"
number_ios = 20
verify = "crc32c"
"""


@pytest.fixture(scope="session")
def run(image, accelerator, tmp_path_factory):
    """Return a function that runs a scenario and opens its capture; the same run is made once."""
    made = {}

    def run_it(scenario, settings=None, **more):
        key = repr((scenario, settings))
        if key not in made or more:
            made[key] = Capture.open(
                session.run(
                    scenario,
                    settings or {},
                    image=image,
                    accelerator=accelerator,
                    out=tmp_path_factory.mktemp("run") / "capture",
                    **{"progress": print, **more},
                )
            )
        return made[key]

    return run_it


@pytest.fixture
def fault(run, tmp_path):
    """Return a function that runs a load which begins with a command in the guest."""

    def run_it(command, **more):
        file = tmp_path / "fault.toml"
        file.write_text(FAULT.format(command=command))
        return run(load_scenario(file), **more)

    return run_it


def kinds(text):
    return set(text.split())


@pytest.mark.parametrize("persistent", ["on", "off"])
def test_everything_that_happens_is_recorded(run, persistent):
    capture = run(load_scenario("basic"), {"persistent": persistent})
    assert (capture.run["ended"], capture.run["notes"]) == ("ok", [])
    assert not capture.fio("guest1").verify_failed
    table = EventTable.build(capture)
    assert table.losses == ()
    assert not any(table.missing.values())
    for source, side in SIDES.items():
        armed = {name for name, kind in EVENTS.items() if kind.origin in (side, "either")}
        assert armed - {"mark"} <= table.probes[source]
        seen = {name for name, count in table.counts[source].items() if count}
        assert kinds(ALWAYS[source]) - {"be_free_persistent"} <= seen
    tree = {name for name in kinds(PERSISTENT) if table.count(name)}
    assert tree == (kinds(PERSISTENT) if persistent == "on" else set())
    requests = table.count("be_request")
    assert requests >= 1300
    assert requests == table.count("be_response") == table.count("fe_response") == table.count("fe_queue")


@pytest.mark.parametrize("persistent", ["on", "off"])
def test_settings_arrive_on_both_sides(run, persistent):
    capture = run(load_scenario("basic"), {"persistent": persistent})
    wanted = {"on": "Y", "off": "N"}[persistent]
    assert capture.parameters("dom0")["xen_blkback"]["feature_persistent"] == wanted
    assert capture.parameters("guest1")["xen_blkfront"]["feature_persistent"] == wanted
    published = capture.text("xenstore/attached.txt").splitlines()
    offers = [line for line in published if "/feature-persistent = " in line]
    assert len(offers) == 2
    assert all(line.endswith({"on": '"1"', "off": '"0"'}[persistent]) for line in offers)


def test_xen_kernel_and_xenstore_tell_the_same_story(run):
    capture = run(load_scenario("basic"), {"persistent": "off"})
    table = EventTable.build(capture)
    mapped = int(table.of("gt_map")["n"].sum())
    # A ring's page is mapped by another way than data, and twice when its frontend's state is seen twice.
    ring_maps = int(table.of("gt_map_ring")["n"].sum())
    assert mapped + 1 == table.count("gt_grant") > 1000
    armed = table.tsc[table.index["mark"]].min()
    assert mapped + ring_maps == sum(event.tsc > armed for event in table.rows(["xen_map"]))
    assert capture.grants("attached").complete
    assert capture.grants("detached").complete
    assert len(capture.grants("attached").domains[1]) >= len(capture.grants("detached").domains[1])
    assert any(change.path.endswith("/feature-persistent") for change in capture.xenstore_changes())
    assert "MHz processor" in capture.text("consoles/xen.log")


def test_indirect_requests_can_be_switched_off(run):
    table = EventTable.build(run(load_scenario("basic"), {"indirect": "off"}))
    assert not (table.of("fe_push")["op"] == INDIRECT).any()
    assert set(table.of("fe_queue")["max_indirect"]) == {0}


TWO_JOBS = """
description = "two jobs at a time"
seed = 1
[fio]
ioengine = "libaio"
direct = 1
iodepth = 16
rw = "randwrite"
bssplit = "4k/50:128k/50"
blockalign = "4k"
numjobs = 2
offset_increment = "50%"
size = "50%"
number_ios = 200
verify = "crc32c"
"""


@pytest.mark.parametrize("persistent", ["on", "off"])
def test_two_rings_of_four_pages_are_followed_side_by_side(run, tmp_path, persistent):
    file = tmp_path / "two-jobs.toml"
    file.write_text(TWO_JOBS)
    capture = run(load_scenario(file), {"queues": "2", "ring_order": "2", "persistent": persistent})
    examined = examine(capture)
    assert examined.verdict.outcome is Outcome.PASS, examined.verdict.reasons
    rings = [[len(ring.requests), ring.back.halves[0].taken.nr_ents] for ring in examined.history.rings]
    assert len(rings) == 2
    assert all(requests > 10 and nr_ents == 128 for requests, nr_ents in rings), rings
    assert sum(requests for requests, _ in rings) == examined.verdict.requests >= 800
    assert [name for name in capture.files if name.startswith("guest1/trace/cpu")] == [
        "guest1/trace/cpu0.raw",
        "guest1/trace/cpu1.raw",
    ]


def test_counting_instructions_every_run_is_like_the_last(image, tmp_path):
    accelerator = probe(image, "icount")
    captures = []
    for number in range(2):
        out = tmp_path / str(number)
        session.run(
            load_scenario("basic"),
            {"persistent": "off"},
            image=image,
            accelerator=accelerator,
            out=out,
            progress=print,
        )
        captures.append(Capture.open(out))
    assert captures[0].run["accelerator"] == {"name": "icount", "why": "asked for"}
    runs = [examine(capture) for capture in captures]
    assert all(run.verdict.outcome is Outcome.PASS for run in runs)
    # Wall time decides when consoles and xenstore wake somebody, and so how often that falls together
    # with the disk; what the disk does besides must be alike.
    alike = [name for name, kind in EVENTS.items() if kind.origin != "either" and name != "fe_irq"]
    counts = [{name: run.history.table.count(name) for name in alike} for run in runs]
    assert counts[0] == counts[1]
    ticks = [run.verdict.metrics.window_ticks for run in runs]
    assert max(ticks) / min(ticks) < 1.02


def test_the_tree_can_be_made_too_small(run):
    table = EventTable.build(run(load_scenario("persistent-cap")))
    assert table.losses == ()
    assert table.of("be_request")["pgc"].max() == 32
    assert table.of("gt_unmap")["n"].max() > 0


@pytest.mark.parametrize("persistent", ["on", "off"])
def test_a_request_of_256_segments_is_seen_whole(run, tmp_path, persistent):
    file = tmp_path / "large.toml"
    file.write_text(LARGE)
    capture = run(load_scenario(file), {"persistent": persistent, "indirect": "256"})
    verdict = check(capture)
    assert verdict.outcome is Outcome.PASS, (verdict.findings, verdict.reasons)
    assert max(verdict.metrics.segments) == 256
    for rule in verdict.rules.values():
        assert rule.decided == rule.checked, rule
    table = EventTable.build(capture)
    assert table.count("be_indirect_rest") == table.count("fe_page_rest") > 0
    assert (table.count("gt_unmap_rest") > 0) == (persistent == "off")


def test_what_only_large_requests_need_sleeps_without_them(run):
    table = EventTable.build(run(load_scenario("basic"), {"indirect": "off", "persistent": "off"}))
    large = kinds("be_indirect_more be_indirect_rest gt_unmap_more gt_unmap_many gt_unmap_rest fe_page_rest")
    assert large <= table.probes["dom0"] | table.probes["guest1"]
    assert not any(table.count(name) for name in large)


def test_a_guest_that_panics_is_a_result(fault):
    capture = fault("echo c > /proc/sysrq-trigger")
    assert capture.run["ended"] == "guest-panic"
    assert "sysrq triggered crash" in capture.run["notes"][0]
    assert capture.domains == ("dom0",)
    assert EventTable.build(capture).count("be_fe_changed") > 0
    assert capture.has("consoles/registers.txt")


def test_a_load_that_stands_still_is_a_stall_and_still_recorded(fault):
    capture = fault("sleep 1000")
    assert capture.run["ended"] == "stall"
    assert capture.domains == ("dom0", "guest1")
    assert EventTable.build(capture).losses == ()
    assert capture.has("gnttab_attached.txt")
    assert not capture.has("gnttab.txt")


def for_another_kernel(path, target):
    target.write_bytes(path.read_bytes().replace(b" SMP ", b" UP. "))
    return target


def test_a_guest_that_never_attaches_is_a_stall_with_its_reason(fault, image, tmp_path):
    driver = for_another_kernel(image.modules["xen_blkfront"], tmp_path / "front.ko")
    capture = fault("true", drivers={"xen_blkfront": Driver(driver, driver, {})})
    assert capture.run["ended"] == "stall"
    assert any("xen-blkfront: insmod: can't insert" in note for note in capture.run["notes"])


def test_a_backend_that_does_not_load_is_an_error_with_its_reason(fault, image, tmp_path):
    driver = for_another_kernel(image.modules["xen_blkback"], tmp_path / "back.ko")
    with pytest.raises(SessionError, match=r"insmod: can't insert .*xen-blkback"):
        fault("true", drivers={"xen_blkback": Driver(driver, driver, {})})


def test_qemu_may_be_killed_in_mid_run(fault, monkeypatch):
    pids = []

    class WatchedPool(Pool):
        @contextmanager
        def parked(self, *args, **kwargs):
            with super().parked(*args, **kwargs) as machine:
                pids.append(machine.qemu_pid)
                yield machine

    def kill_when_loading(text):
        if text == "load":
            os.kill(pids[-1], signal.SIGKILL)

    monkeypatch.setattr(recording, "Pool", WatchedPool)
    capture = fault("sleep 1000", progress=kill_when_loading)
    assert capture.run["ended"] == "qemu-died"
    assert capture.has("consoles/qemu.log")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "p:blkproof/be_map no_such_function n=%si:s32",
            "probe be_map: the kernel refused 'no_such_function",
        ),
        ("p:blkproof/be_map xenbus_write n=%xx:s32", "probe be_map: the kernel refused 'n=%xx:s32'"),
    ],
)
def test_a_probe_that_the_kernel_refuses_is_named_in_its_words(image, accelerator, line, says):
    refused = preparation([Definition("be_map", "vmlinux", line)])
    with (
        pytest.raises(ProbeError, match=says),
        Pool(image, accelerator, progress=print).parked(refused),
    ):
        pass
