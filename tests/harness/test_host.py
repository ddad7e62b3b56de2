from pathlib import Path

import pytest
from blkproof.harness import host
from blkproof.harness.errors import HostError


def test_enough_memory_and_disk_are_silent(tmp_path):
    host.check_memory(lambda: host.MACHINE_MEMORY_MB)
    host.check_disk(tmp_path, lambda _: host.STATES_DISK_MB)


def test_too_little_memory_is_told_with_both_numbers():
    with pytest.raises(HostError, match=f"needs {host.MACHINE_MEMORY_MB} MB and 700 MB are"):
        host.check_memory(lambda: 700)


def test_too_little_disk_names_the_directory_and_the_way_out(tmp_path):
    with pytest.raises(HostError, match="BLKPROOF_CACHE") as caught:
        host.check_disk(tmp_path, lambda _: 12)
    assert str(tmp_path) in str(caught.value)
    assert "12 MB are free" in str(caught.value)


def test_a_root_without_proc_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_MEMORY_FACTS", tmp_path / "meminfo")
    with pytest.raises(HostError, match="mount /proc"):
        host.check_memory()


def test_this_host_has_memory_and_disk(tmp_path):
    assert host.available_memory_mb() > 0
    assert host.free_disk_mb(tmp_path / "not" / "made" / "yet") > 0


def test_a_missing_qemu_says_which_package_to_install():
    with pytest.raises(HostError, match="install the package qemu-system-x86"):
        host.qemu_version("/nonexistent/qemu-system-x86_64")


def test_the_version_is_taken_from_the_first_line(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2)'\necho Copyright\n")
    program.chmod(0o755)
    assert host.qemu_version(str(program)) == "7.2.22 (Debian 1:7.2)"


def test_the_processor_has_a_name():
    assert host.processor_model() in Path("/proc/cpuinfo").read_text()
