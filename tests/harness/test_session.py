"""A run, with a machine that is played: what becomes of each way in which it can end."""

import io
import json
import shlex
import tarfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from blkproof.harness import cost, recording, session
from blkproof.harness.errors import HarnessError, Loss, MachineLost, ScenarioError, SessionError, SshError
from blkproof.harness.host import Accelerator
from blkproof.harness.probes.compiler import Probes
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.scenario import load_scenario
from blkproof.harness.ssh import Result
from blkproof.harness.unpacking import END_OF_BULK
from blkproof.images.drivers import Driver
from blkproof.traces.capture import Capture


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


EVIDENCE = {
    "xen-boot.txt": b"(XEN) Xen version 4.17\n",
    "dom0/parameters.json": b'{"xen_blkback": {"feature_persistent": "N"}}',
    "guest1.tar": tar({"./fio.json": b"{}", "./trace/cpu0.raw": b"\0" * 4096}),
}
SPEECH = ["blkproof: domid 3", "blkproof: phase attach", "blkproof: beat .1.2", "blkproof: ended ok"]


class PlayedMachine:
    """Says `speech`, then ends with `rc` or raises `end`; leaves `bulk` behind."""

    def __init__(
        self, directory, speech=SPEECH, rc=0, end=None, bulk=None, salvage=None, xen="(XEN) later\n", dom0=""
    ):
        self.accelerator = Accelerator("tcg", "played", "max", 4.0)
        self.bulk = directory / "bulk"
        self.bulk.write_bytes(tar(EVIDENCE) + END_OF_BULK if bulk is None else bulk)
        self.commands, self.files, self.beats, self.phases = [], {}, [], []
        self._speech, self._rc, self._end, self._salvage = speech, rc, end, salvage
        self._consoles = {"xen": xen, "dom0": dom0}
        self.ssh = self.supervisor = self

    def run(self, command, stdin=b"", *, timeout_s, on_line):  # noqa: ARG002 - Ssh.run's signature
        self.commands.append((command, stdin.decode()))
        for line in self._speech:
            on_line("err", line)
        if self._end:
            raise self._end
        return Result(self._rc, b"", b"")

    def check_run(self, command, *, timeout_s):  # noqa: ARG002 - Ssh.check_run's signature
        self.commands.append((command, ""))
        if self._salvage:
            raise self._salvage
        return Result(0, b"", b"blkproof: grants gnttab_attached.txt\n")

    def put(self, data, path):
        self.files[path] = data

    def phase(self, name):
        self.phases.append(name)

    def beat(self, token):
        self.beats.append(token)

    @contextmanager
    def expect_progress(self, what, stall_s):  # noqa: ARG002 - Supervisor's signature
        yield

    @contextmanager
    def salvage(self):
        self.commands.append(("salvage", ""))
        yield

    def copy_logs(self, target):
        target.mkdir(exist_ok=True)
        for name, text in self._consoles.items():
            (target / f"{name}.log").write_text(text)


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Return a function that runs `basic` on a played machine: (run, machine)."""
    image_files = {}
    for name in ("xen_blkback", "xen_blkfront", "btf"):
        image_files[name] = tmp_path / name
        image_files[name].write_bytes(name.encode())
    image = SimpleNamespace(
        name="debian12",
        digest="d1",
        versions={"xen": "4.17"},
        btf=image_files.pop("btf"),
        modules=image_files,
    )
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recording, "load_probes", lambda *_: Probes((), {"be_get": "it was inlined"}))
    monkeypatch.setattr(session, "qemu_version", lambda _: "7.2")
    monkeypatch.setattr(cost, "qemu_version", lambda _: "7.2")

    def prepare(**how):
        machine = PlayedMachine(tmp_path, **how)

        class PlayedPool:
            def __init__(self, *_, **__):
                pass

            @contextmanager
            def parked(self, preparation, rescue):  # noqa: ARG002 - Pool.parked's signature
                yield machine

        monkeypatch.setattr(recording, "Pool", PlayedPool)

        def run(settings=None, out=tmp_path / "out", drivers=None, said=print):
            return session.run(
                load_scenario("basic"),
                settings or {},
                image=image,
                accelerator=machine.accelerator,
                out=out,
                drivers=drivers,
                progress=said,
            )

        return run, machine

    return prepare


def test_a_good_run_becomes_a_sealed_capture(record):
    run, machine = record()
    capture = Capture.open(run({"persistent": "off"}))
    assert capture.run["ended"] == "ok"
    assert capture.run["notes"] == []
    assert capture.run["missing"] == {"be_get": "it was inlined"}
    assert capture.run["settings"]["persistent"] == "off"
    assert capture.run["accelerator"] == {"name": "tcg", "why": "played"}
    assert capture.run["tracing_cost"] == {
        "why": "not measured; `blkproof cost basic --set persistent=off` measures it"
    }
    assert capture.run["vdevs"] == {"guest1": [51712]}
    assert capture.domids == {"guest1": 3}
    assert set(capture.run["drivers"]) == {"xen_blkback", "xen_blkfront"}
    assert capture.has("guest1/trace/cpu0.raw")
    assert not capture.has("guest1.tar")
    assert capture.text("consoles/xen.log") == "(XEN) Xen version 4.17\n(XEN) later\n"
    command, job = machine.commands[0]
    assert shlex.split(command) == [
        *("sh", "/lib/blkproof/agent/run.sh", "guest1"),
        "feature_persistent=N max_persistent_grants=1056 max_queues=1 max_ring_page_order=0",
        "feature_persistent=N max_queues=1 max_ring_page_order=0",
        "20",
    ]
    assert "filename=/dev/xvda" in job
    assert machine.beats == ["attach", ".1.2"]
    assert machine.phases == ["attach"]


def test_progress_is_told(record):
    run, _ = record()
    said = []
    run(said=said.append)
    assert said == ["attach"]


def test_words_that_are_not_for_us_are_kept_as_notes(record):
    run, _ = record(speech=["xen-blkfront: invalid module format", *SPEECH[:-1], "blkproof: ended stall"])
    capture = Capture.open(run())
    assert capture.run["ended"] == "stall"
    assert capture.run["notes"] == ["xen-blkfront: invalid module format"]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (Loss.GUEST_PANIC, ["sh /lib/blkproof/agent/salvage.sh "]),
        (Loss.STALL, ["sh /lib/blkproof/agent/salvage.sh 12"]),
        (Loss.DOM0_OOPS, ["sh /lib/blkproof/agent/salvage.sh 12"]),
        (Loss.DOM0_PANIC, []),
        (Loss.XEN_PANIC, []),
        (Loss.QEMU_DIED, []),
    ],
)
def test_a_loss_is_a_result_and_what_lives_is_asked(record, kind, asked):
    run, machine = record(end=MachineLost(kind, "load", 1.0, "sign"), bulk=b"")
    capture = Capture.open(run())
    assert capture.run["ended"] == kind.value
    assert capture.run["notes"][0] == f"{kind.value} after 1.0 s of load: sign"
    assert [command for command, _ in machine.commands[1:] if command != "salvage"] == asked


DUMP = "(XEN) gnttab_usage_print_all [ key 'g' pressed\n(XEN) {}\n(XEN) gnttab_usage_print_all ] done\n"


def test_lists_of_grants_are_taken_from_the_console(record):
    said = ["blkproof: grants gnttab_attached.txt", "blkproof: grants gnttab.txt"]
    run, _ = record(
        speech=[*said, *SPEECH], xen=f"(XEN) a\n{DUMP.format('one')}(XEN) b\n{DUMP.format('two')}(XEN) c\n"
    )
    capture = Capture.open(run())
    assert capture.text("gnttab_attached.txt") == DUMP.format("one")
    assert capture.text("gnttab.txt") == DUMP.format("two")


@pytest.mark.parametrize(
    "line", ["blkproof: grants ../escaped", "guest: blkproof: ended ok", "blkproof: domid x"]
)
def test_words_that_a_guest_could_forge_are_only_notes(record, tmp_path, line):
    run, _ = record(speech=[line, "blkproof: ended stall"], xen=DUMP.format("one"))
    capture = Capture.open(run())
    assert capture.run["ended"] == "stall"
    assert capture.run["notes"] == [line]
    assert not (tmp_path / "escaped").exists()


def test_a_list_of_grants_that_is_cut_off_is_kept_so(record):
    lost = MachineLost(Loss.STALL, "load", 1.0, "sign")
    run, _ = record(end=lost, xen=DUMP.format("one")[:60])
    assert Capture.open(run()).text("gnttab_attached.txt") == DUMP.format("one")[:60]


def test_a_driver_that_takes_a_probe_not_is_an_error(record, tmp_path):
    refused = "Failed to re-register probe be_map on xen_blkback: -2"
    run, _ = record(dom0=f"[    7.1] trace_kprobe: {refused}\n")
    with pytest.raises(ProbeError, match=refused):
        run()
    assert Capture.open(tmp_path / "out").run["ended"] == "harness"


def test_a_salvage_that_fails_is_noted(record):
    lost = MachineLost(Loss.STALL, "load", 1.0, "sign")
    run, _ = record(end=lost, bulk=b"", salvage=SshError("dom0 is mute"))
    assert "dom0's evidence could not be had: dom0 is mute" in Capture.open(run()).run["notes"]


def test_evidence_that_is_cut_off_is_kept_as_far_as_it_goes(record):
    run, _ = record(bulk=tar(EVIDENCE)[:2000])
    capture = Capture.open(run())
    assert capture.has("dom0/parameters.json")
    assert any("without an end" in note for note in capture.run["notes"])
    assert any("cut off or damaged" in note for note in capture.run["notes"])


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"rc": 1, "speech": ["insmod: no"]}, SessionError, "status 1: insmod: no"),
        ({"rc": 1, "speech": []}, SessionError, "no word"),
        ({"end": SshError("the connection broke")}, SshError, "the connection broke"),
    ],
)
def test_a_failure_of_ours_is_raised_and_sealed_all_the_same(record, tmp_path, how, error, says):
    run, _ = record(**how)
    with pytest.raises(error, match=says):
        run()
    capture = Capture.open(tmp_path / "out")
    assert capture.run["ended"] == "harness"
    assert any(says in note for note in capture.run["notes"])


def test_an_interrupted_run_leaves_nothing(record, tmp_path):
    run, _ = record(end=KeyboardInterrupt())
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        run()
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_rest_of_a_killed_run_is_no_hindrance(record, tmp_path):
    run, _ = record()
    unfinished = tmp_path / ".out.unfinished"
    unfinished.mkdir()
    (unfinished / "rest").write_text("x")
    assert not Capture.open(run()).has("rest")
    assert not unfinished.exists()


def test_a_directory_that_exists_is_not_touched(record, tmp_path):
    run, machine = record()
    (tmp_path / "out").mkdir()
    with pytest.raises(SessionError, match="exists already"):
        run()
    assert machine.commands == []


def test_a_wrong_setting_is_told_before_anything_starts(record, tmp_path):
    run, machine = record()
    with pytest.raises(ScenarioError, match="no setting"):
        run({"persist": "on"})
    assert machine.commands == []
    assert not (tmp_path / "out").exists()


def test_other_drivers_are_put_into_the_machine_and_named(record, tmp_path):
    run, machine = record()
    patched, loadable = tmp_path / "patched.ko", tmp_path / "loadable.ko"
    patched.write_bytes(b"faulty, with DWARF")
    loadable.write_bytes(b"faulty")
    made_of = {"patches": [{"file": "my.patch"}]}
    capture = Capture.open(run(drivers={"xen_blkback": Driver(patched, loadable, made_of)}))
    assert machine.files == {"/run/blkproof/drivers/xen-blkback.ko": b"faulty"}
    assert capture.run["variants"] == {"xen_blkback": made_of}
    plain = Capture.open(run(out=tmp_path / "plain"))
    assert plain.run["variants"] == {}
    assert capture.run["drivers"]["xen_blkback"] != plain.run["drivers"]["xen_blkback"]
    assert capture.run["drivers"]["xen_blkfront"] == plain.run["drivers"]["xen_blkfront"]


def test_the_manifest_names_no_path_of_this_host(record, tmp_path):
    run, _ = record()
    assert str(tmp_path) not in json.dumps(Capture.open(run()).run)
    assert issubclass(SessionError, HarnessError)
    assert Path(recording.DISK).name == "xvda"
