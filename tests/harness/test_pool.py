"""The pool's bookkeeping, with machines that only pretend; tests/live has real ones."""

import os
from types import SimpleNamespace

import pytest
from blkproof.harness import pool as module
from blkproof.harness.errors import HostError, QemuError, SshError
from blkproof.harness.host import Accelerator
from blkproof.harness.pool import KEEP, Pool, Preparation, prune
from blkproof.harness.shape import Shape
from blkproof.harness.snapshot import Snapshot

TCG = Accelerator("tcg", "a test", "max", 1.0)


@pytest.fixture
def log(monkeypatch):
    """What all machines did, in order; `broken` counts the restores that are to fail."""
    record = SimpleNamespace(done=[], broken=0)

    class Machine:
        def __init__(self, *_):
            self.content = ""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def close(self):
            record.done.append("close")

        def boot(self):
            record.done.append("boot")
            self.content = "ready"

        def wait_ready(self):
            pass

        def save(self, directory):
            record.done.append(f"save {self.content}")
            with (directory / "content").open("w+b") as memory:
                memory.write(self.content.encode())
                memory.flush()
                Snapshot(directory).write(memory.fileno(), b"devices")

        def restore(self, snapshot, *, to_save_again=False):
            snapshot.check()
            if record.broken:
                record.broken -= 1
                raise QemuError("QEMU could not load the devices")
            self.content = snapshot.memory.read_text()
            record.done.append(f"restore {self.content}" + (" to save again" if to_save_again else ""))

    monkeypatch.setattr(module, "Machine", Machine)
    return record


@pytest.fixture
def image(tmp_path):
    host_key = tmp_path / "host_key.pub"
    host_key.write_text("ssh-ed25519 AAAA\n")
    return SimpleNamespace(name="debian12", digest="d1", host_key=host_key)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


@pytest.fixture
def pool(image, log):  # noqa: ARG001  (no pool here without pretended machines)
    return Pool(image, TCG, progress=lambda _: None)


def park(machine):
    machine.content = "parked"


PREPARATION = Preparation("p1", park)
COLD = [
    *("boot", "save ready", "close"),
    *("restore ready to save again", "save parked", "close"),
    *("restore parked", "close"),
]


def test_a_cold_start_boots_parks_and_restores(pool, log):
    with pool.parked(PREPARATION) as machine:
        assert machine.content == "parked"
    assert log.done == COLD


def test_a_warm_start_only_restores(pool, log):
    with pool.parked(PREPARATION):
        pass
    log.done.clear()
    with pool.parked(PREPARATION):
        pass
    assert log.done == ["restore parked", "close"]


def test_another_preparation_shares_the_boot(pool, log):
    with pool.parked(PREPARATION):
        pass
    with pool.parked(Preparation("p2", park)):
        pass
    assert log.done.count("boot") == 1
    assert log.done.count("save parked") == 2


def test_a_ready_machine_can_be_had_as_well(pool, log):
    with pool.ready() as machine:
        assert machine.content == "ready"
    assert log.done == ["boot", "save ready", "close", "restore ready", "close"]


def test_a_preparation_that_fails_leaves_nothing(pool, log, cache):
    def fail(_):
        raise SshError("xl create failed")

    with pytest.raises(SshError), pool.parked(Preparation("p1", fail)):
        pass
    assert [state.name.partition("-")[0] for state in cache.iterdir()] == ["ready"]
    assert log.done[-1] == "close"
    with pool.parked(PREPARATION) as machine:
        assert machine.content == "parked"


def damage_memory(state):
    os.truncate(state / "memory", 1)


def damage_devices(state):
    (state / "devices").write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_memory, damage_devices])
@pytest.mark.parametrize("stage", ["ready", "parked"])
def test_a_damaged_state_is_made_anew(pool, log, cache, damage, stage):
    with pool.parked(PREPARATION):
        pass
    for state in cache.glob("*-*"):
        if stage == "ready" and state.name.startswith("parked"):
            module.shutil.rmtree(state)
        if state.name.startswith(stage):
            damage(state)
    log.done.clear()
    with pool.parked(PREPARATION) as machine:
        assert machine.content == "parked"
    assert ("boot" in log.done) == (stage == "ready")
    assert "save parked" in log.done


def test_a_state_that_qemu_refuses_is_made_anew_once(pool, log):
    with pool.parked(PREPARATION):
        pass
    log.broken = 1
    with pool.parked(PREPARATION) as machine:
        assert machine.content == "parked"
    log.broken = 99
    with pytest.raises(QemuError), pool.parked(PREPARATION):
        pass


@pytest.mark.parametrize("what", ["image", "host key", "shape", "accelerator", "qemu", "processor"])
def test_whatever_shapes_a_machine_asks_for_a_boot_of_its_own(pool, log, image, what, monkeypatch):
    with pool.ready():
        pass
    shape, accelerator = Shape(), TCG
    if what == "image":
        image.digest = "d2"
    elif what == "host key":
        image.host_key.write_text("ssh-ed25519 BBBB\n")
    elif what == "shape":
        shape = Shape(vcpus=4)
    elif what == "accelerator":
        accelerator = Accelerator("tcg", "a test", "max,-avx", 1.0)
    elif what == "qemu":
        monkeypatch.setattr(module, "qemu_version", lambda _: "99")
    else:
        monkeypatch.setattr(module, "processor_model", lambda: "another")
    with Pool(image, accelerator, progress=lambda _: None, shape=shape).ready():
        pass
    assert log.done.count("boot") == 2


def test_why_an_accelerator_was_chosen_does_not_matter(pool, log, image):
    with pool.ready():
        pass
    with Pool(image, Accelerator("tcg", "another reason", "max", 1.0), progress=lambda _: None).ready():
        pass
    assert log.done.count("boot") == 1


def test_only_the_last_used_states_are_kept(pool, log, cache):
    for number in range(KEEP["parked"] + 2):
        with pool.parked(Preparation(f"p{number}", park)):
            pass
        for age, state in enumerate(sorted(cache.glob("*-*"), key=lambda state: state.stat().st_mtime)):
            os.utime(state, (age, age))  # the clock may be too coarse for the order
        with pool.parked(Preparation("p0", park)):
            pass
    assert len(list(cache.glob("parked-*"))) == KEEP["parked"]
    assert len(list(cache.glob("ready-*"))) == 1
    assert log.done.count("save parked") == KEEP["parked"] + 2  # p0 was in use, and so was never pruned


def test_pruning_removes_the_least_recently_used(tmp_path):
    for age in range(4):
        state = tmp_path / f"parked-{age}"
        state.mkdir()
        os.utime(state, (age, age))
    (tmp_path / "ready-0").mkdir()
    prune(tmp_path, "parked", 2)
    assert sorted(state.name for state in tmp_path.iterdir()) == ["parked-2", "parked-3", "ready-0"]


def test_no_state_is_made_without_room(pool, log, monkeypatch):
    def full(_):
        raise HostError("disk: full")

    monkeypatch.setattr(module, "check_disk", full)
    with pytest.raises(HostError, match="disk: full"), pool.ready():
        pass
    assert log.done == []
