import os
from types import SimpleNamespace

import pytest
from blkproof.harness import accel
from blkproof.harness.errors import HostError

IMAGE = SimpleNamespace(digest="d1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def device(tmp_path):
    """A file that opens, as KVM does on hosts where it is of no use."""
    path = tmp_path / "kvm"
    path.touch()
    return path


@pytest.fixture
def boots(monkeypatch):
    """Count the boots under KVM; each ends with the answer set here."""
    record = SimpleNamespace(count=0, answer=None)

    def boot(_):
        record.count += 1
        return record.answer

    monkeypatch.setattr(accel, "_boot_under_kvm", boot)
    return record


def test_kvm_is_chosen_once_xen_has_booted_under_it(device, boots):
    found = accel.probe(IMAGE, device=device)
    assert (found.name, found.cpu_model, found.slowness) == ("kvm", "host", 1.0)
    assert found.why == "Xen boots under it"
    assert boots.count == 1


def test_kvm_that_opens_and_cannot_run_xen_is_not_chosen(device, boots):
    boots.answer = "QEMU was ended by SIGABRT"
    found = accel.probe(IMAGE, device=device)
    assert found.name == "tcg"
    assert found.why == "KVM can't be used: QEMU was ended by SIGABRT"
    assert found.cpu_model == "max,-smap,-avx,-xsave"
    assert found.slowness > 1


def test_counting_instructions_is_only_for_those_who_ask(device, boots):
    found = accel.probe(IMAGE, "icount", device=device)
    assert (found.name, found.why, found.deterministic) == ("icount", "asked for", True)
    assert {"-rdrand", "-rdseed"} <= set(found.cpu_model.split(","))
    assert not accel.probe(IMAGE, "tcg", device=device).deterministic
    assert boots.count == 0


@pytest.mark.parametrize("answer", [None, "QEMU was ended by SIGABRT"])
def test_the_answer_is_remembered(device, boots, answer):
    boots.answer = answer
    first = accel.probe(IMAGE, device=device)
    assert accel.probe(IMAGE, device=device) == first
    assert boots.count == 1


def test_a_fresh_probe_boots_and_is_remembered_in_turn(device, boots):
    boots.answer = "the host was busy"
    accel.probe(IMAGE, device=device)
    boots.answer = None
    assert accel.probe(IMAGE, device=device, fresh=True).name == "kvm"
    assert accel.probe(IMAGE, device=device).name == "kvm"
    assert boots.count == 2


def test_another_image_another_probe(device, boots):
    accel.probe(IMAGE, device=device)
    accel.probe(SimpleNamespace(digest="d2"), device=device)
    assert boots.count == 2


def test_a_broken_memory_means_another_probe(device, boots, cache):
    accel.probe(IMAGE, device=device)
    (kept,) = (cache / "accelerators").iterdir()
    kept.write_text("{")
    accel.probe(IMAGE, device=device)
    assert boots.count == 2


def test_without_a_device_nothing_is_booted(tmp_path, boots):
    found = accel.probe(IMAGE, device=tmp_path / "none")
    assert (found.name, found.why) == ("tcg", f"KVM can't be used: there is no {tmp_path}/none")
    assert boots.count == 0


def test_a_device_that_may_not_be_opened_nothing_is_booted(tmp_path, boots):
    found = accel.probe(IMAGE, device=tmp_path)  # a directory can't be opened for writing, not even by root
    assert found.name == "tcg"
    assert os.strerror(21) in found.why
    assert boots.count == 0


def test_tcg_asked_for_is_not_questioned(device, boots):
    assert accel.probe(IMAGE, "tcg", device=device).why == "asked for"
    assert boots.count == 0


def test_kvm_asked_for_where_it_is_of_no_use_is_an_error(device, boots):
    boots.answer = "QEMU was ended by SIGABRT"
    with pytest.raises(HostError, match="KVM can't be used: QEMU was ended by SIGABRT; use --accel tcg"):
        accel.probe(IMAGE, "kvm", device=device)
