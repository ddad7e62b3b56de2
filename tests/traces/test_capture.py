"""Sealing and opening: whatever was done to a capture is seen and named."""

import json
import os
import subprocess
import sys

import pytest
from blkproof.traces.capture import MANIFEST, Capture, Window, seal
from blkproof.traces.errors import (
    CaptureAltered,
    CaptureError,
    CaptureVersion,
    DecodeError,
    NotACapture,
)

from tests.writers.capture_writer import write_capture


@pytest.fixture
def sealed(tmp_path):
    return write_capture(tmp_path / "run")


def rewrite(path, **changes):
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_sealed_capture_opens_and_tells_what_it_holds(sealed):
    capture = Capture.open(sealed)
    assert capture.domains == ("dom0", "guest1")
    assert capture.domids == {"guest1": 1}
    assert capture.run["scenario"] == "basic"
    assert capture.parameters("dom0") == {"xen_blkback": {"feature_persistent": "Y"}}
    assert capture.xenstore("before") == {"/local/domain/0/name": "Domain-0"}
    assert capture.fio("guest1").iops == 300.5
    assert [g.ref for g in capture.grants("detached").mapped_by(1, 0)] == [8, 11]
    assert capture.window is None
    assert capture.below("dom0/trace/formats") == [
        "dom0/trace/formats/blkproof/fe_free",
        "dom0/trace/formats/blkproof/gt_try_end",
    ]


def test_the_window_and_the_digest_come_from_the_manifest(tmp_path):
    one = write_capture(tmp_path / "a", run={"window": {"armed_tsc": 5, "disarmed_tsc": 9}})
    other = write_capture(tmp_path / "b", run={"window": {"armed_tsc": 5, "disarmed_tsc": 8}})
    assert Capture.open(one).window == Window(5, 9)
    assert Capture.open(one).digest == Capture.open(one).digest != Capture.open(other).digest


def spoil_cut(path):
    file = path / "xentrace.bin"
    file.write_bytes(file.read_bytes()[:-1])


def spoil_grow(path):
    with (path / "xentrace.bin").open("ab") as out:
        out.write(b"\0")


def spoil_alter(path):
    file = path / "xentrace.bin"
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)


def spoil_remove(path):
    (path / "xentrace.bin").unlink()


def spoil_add(path):
    (path / "xentrace.bin.bak").write_text("x")


def spoil_link(path):
    file = path / "xentrace.bin"
    file.rename(path.parent / "moved")
    file.symlink_to(path.parent / "moved")


def spoil_fifo(path):
    os.mkfifo(path / "xentrace.fifo")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_cut, "cut off"),
        (spoil_grow, "appended to"),
        (spoil_alter, "altered"),
        (spoil_remove, "missing"),
        (spoil_add, "extra file"),
        (spoil_link, "link"),
        (spoil_fifo, "link, socket or device"),
    ],
)
def test_every_change_after_the_sealing_is_named(sealed, spoil, says):
    spoil(sealed)
    with pytest.raises(CaptureAltered, match=says) as caught:
        Capture.open(sealed)
    message = str(caught.value)
    assert "xentrace" in message
    assert "\n" not in message
    assert "; " in message, "it says what to do"


def test_every_prefix_of_a_manifest_is_refused(sealed):
    whole = (sealed / MANIFEST).read_bytes()
    for length in range(len(whole)):
        (sealed / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(NotACapture):
            Capture.open(sealed)


def test_other_directories_are_no_captures(tmp_path):
    with pytest.raises(NotACapture, match="no such directory"):
        Capture.open(tmp_path / "nowhere")
    with pytest.raises(NotACapture, match="cut off, or this is another directory"):
        Capture.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotACapture, match="no such directory"):
        Capture.open(tmp_path / "file")


def test_another_schema_is_refused_by_its_number(sealed):
    rewrite(sealed, schema=2)
    with pytest.raises(CaptureVersion, match="expected schema 1, found schema 2"):
        Capture.open(sealed)


@pytest.mark.parametrize("changes", [{"sealed": False}, {"end": "blkproof"}, {"files": []}, {"run": 3}])
def test_a_manifest_without_its_marks_is_refused(sealed, changes):
    rewrite(sealed, **changes)
    with pytest.raises(NotACapture):
        Capture.open(sealed)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", ".", "a//b", "./a", "a\0b"])
def test_names_that_leave_the_capture_are_refused(sealed, name):
    rewrite(sealed, files={name: {"sha256": "0" * 64, "size": 0}})
    with pytest.raises(CaptureAltered, match="relative names"):
        Capture.open(sealed)


@pytest.mark.parametrize("entry", [None, {}, {"size": "3", "sha256": "x"}, {"sha256": 3, "size": 3}])
def test_a_manifest_with_a_broken_entry_is_refused(sealed, entry):
    rewrite(sealed, files={"xentrace.bin": entry})
    with pytest.raises(NotACapture, match="sha256 and size"):
        Capture.open(sealed)


def test_a_directory_is_sealed_once(sealed):
    with pytest.raises(NotACapture, match="write to a new directory"):
        seal(sealed, {})


def test_a_failed_sealing_leaves_no_manifest(tmp_path):
    (tmp_path / "data").write_text("x")
    with pytest.raises(TypeError):
        seal(tmp_path, {"not json": object()})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    seal(tmp_path, {})
    assert Capture.open(tmp_path).has("data")


def test_hostile_text_does_not_reach_the_terminal(sealed):
    (sealed / "evil\x1b[2J\n").write_text("x")
    with pytest.raises(CaptureAltered) as caught:
        Capture.open(sealed)
    assert str(caught.value).isprintable()


def test_a_file_that_the_run_did_not_record_is_an_error_with_the_reason(tmp_path):
    (tmp_path / "consoles").mkdir()
    (tmp_path / "consoles/xen.log").write_text("x")
    seal(tmp_path, {"ended": "dom0-panic"})
    with pytest.raises(CaptureError, match="ended 'dom0-panic' without recording it"):
        Capture.open(tmp_path).fio("guest1")


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("guest1/fio.json", "fio: nothing", lambda c: c.fio("guest1")),
        ("guest1/fio.json", '{"jobs": [{"error": 0}]}', lambda c: c.fio("guest1")),
        ("guest1/fio.json", '{"jobs": [{"error": 0, "read": 3, "write": 4}]}', lambda c: c.fio("guest1")),
        ("gnttab.txt", "(XEN) nothing", lambda c: c.grants("detached")),
        ("xenstore/after.txt", "what = this", lambda c: c.xenstore("after")),
        ("dom0/parameters.json", "[]", lambda c: c.parameters("dom0")),
        ("dom0/parameters.json", "{", lambda c: c.parameters("dom0")),
        ("dom0/parameters.json", "[" * 100_000, lambda c: c.parameters("dom0")),
    ],
)
def test_files_with_other_contents_are_named(sealed, name, text, read):
    (sealed / name).write_text(text)
    (sealed / MANIFEST).unlink()
    seal(sealed, {})
    with pytest.raises(DecodeError, match=name):
        read(Capture.open(sealed))


def test_opening_a_capture_imports_nothing_heavy(sealed):
    code = (
        "import sys; from blkproof.traces.capture import Capture; Capture.open(sys.argv[1]);"
        "print([m for m in ('numpy', 'pandas', 'numba', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, sealed], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rest_of_a_killed_sealing_is_no_part_of_the_capture(tmp_path):
    (tmp_path / f"{MANIFEST}.partial").write_text('{"schema":')
    seal(tmp_path, {})
    assert Capture.open(tmp_path).files == {}
