"""The accelerator probe, with a real QEMU and Xen on whatever host this is."""

from pathlib import Path

import pytest
from blkproof.harness.accel import probe
from blkproof.harness.errors import HostError

pytestmark = pytest.mark.live


def test_the_probe_boots_xen_and_tells_why(image, monkeypatch, tmp_path):
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path))  # nothing is remembered there
    # A device that opens on every host, so that only the boot of Xen can say what KVM is good for.
    opens = Path("/dev/null")
    found = probe(image, device=opens)
    assert probe(image, device=opens) == found
    if found.name == "kvm":
        assert probe(image, "kvm", device=opens) == found
    else:
        assert found.why.startswith("KVM can't be used: ")
        with pytest.raises(HostError, match="or a host with nested virtualisation") as caught:
            probe(image, "kvm", device=opens)
        assert str(caught.value).startswith(found.why)


def test_a_host_without_kvm_is_known_at_once(image, tmp_path):
    assert probe(image, device=tmp_path / "kvm").why.endswith(f"there is no {tmp_path}/kvm")
