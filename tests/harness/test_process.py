import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from blkproof.harness.private import PrivateDirectory
from blkproof.harness.process import SELF_ENDED, QemuProcess
from blkproof.harness.waiting import wait_until

SLEEP = ["sleep", "1000"]


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = QemuProcess(PrivateDirectory.create())
    yield process
    process.close()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_end(process):
    return wait_until(process.end, 20, "end of the process")


def test_close_kills_and_removes(process, tmp_path):
    process.start(SLEEP, [])
    assert alive(process.pid)
    process.close()
    assert not alive(process.pid)
    assert list(tmp_path.iterdir()) == []
    process.directory = PrivateDirectory.create()  # for the fixture's own close


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["true"], SELF_ENDED),
        (["sh", "-c", "exit 3"], "QEMU exited with status 3"),
        (["sh", "-c", "kill -SEGV $$"], "QEMU was ended by SIGSEGV"),
        (["/nonexistent/qemu"], "QEMU could not be executed"),
    ],
)
def test_an_end_is_told_in_words(process, command, told):
    process.start(command, [])
    assert wait_for_end(process) == told


def test_kill_leaves_the_files_to_be_read(process):
    process.start(["sh", "-c", "echo said; exec sleep 1000"], [])
    log = process.directory.path / "qemu.log"
    wait_until(lambda: log.exists() and log.read_text(), 20, "output")
    process.kill()
    assert process.end() == "QEMU was ended by SIGKILL"
    assert log.read_text() == "said\n"


def test_a_killed_warden_takes_the_process_along(process):
    process.start(SLEEP, [])
    warden = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(warden, signal.SIGKILL)
    assert wait_for_end(process) == "QEMU was killed together with its warden"
    wait_until(lambda: not alive(process.pid), 20, "end of the orphan")


def test_the_process_outlives_the_thread_that_started_it(process):
    starter = threading.Thread(target=process.start, args=(SLEEP, []))
    starter.start()
    starter.join()
    assert process.end(wait_s=0.3) is None
    assert alive(process.pid)


def test_ctrl_c_at_the_terminal_reaches_the_harness_only(process):
    process.start(SLEEP, [])
    assert os.getsid(process.pid) != os.getsid(0)


def test_the_process_inherits_what_it_should_and_nothing_else(process):
    mine, other = os.pipe()
    process.start(["sh", "-c", f"ls -1 /proc/self/fd > {process.directory.path}/fds"], [mine])
    wait_for_end(process)
    listed = {int(name) for name in (process.directory.path / "fds").read_text().split()}
    assert mine in listed
    assert process.directory.lock_fd not in listed
    assert other not in listed
    os.close(mine)
    os.close(other)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_harness_leaves_nothing_behind(tmp_path, how):
    script = (
        "import sys, tempfile, time\n"
        "from blkproof.harness.private import PrivateDirectory\n"
        "from blkproof.harness.process import SELF_ENDED, QemuProcess\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "process = QemuProcess(PrivateDirectory.create())\n"
        "process.start(['sleep', '1000'], [])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    # A suite that runs in the background ignores Ctrl-C, and so would its children.
    command = ["env", "--default-signal=INT", sys.executable, "-c", script]
    harness = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid = int(harness.stdout.readline())
    assert alive(pid)
    harness.send_signal(how)
    harness.wait()
    harness.stdout.close()
    wait_until(lambda: not alive(pid), 20, "end of the process")
    wait_until(lambda: not list(tmp_path.iterdir()), 20, "removal of the directory")
