"""Qmp against a QEMU of our own: a thread that speaks the protocol over the inherited descriptor."""

import json
import os
import socket
import threading

import pytest
from blkproof.harness.errors import QemuError
from blkproof.harness.qmp import Qmp

VERSION = {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": []}}


class FakeQemu:
    """Answers each command by a function of its name, which may return None to end."""

    def __init__(self, fd, answer):
        self._socket = socket.socket(fileno=os.dup(fd))
        self._answer = answer
        self.commands = []
        self.fds = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        self._send(GREETING)
        text = ""
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, 4)
            self.fds += fds
            if not data:
                return
            text = (text + data.decode()).lstrip()
            while text:
                request, end = json.JSONDecoder().raw_decode(text)  # requests here are short: never cut
                text = text[end:].lstrip()
                if not self._reply(request):
                    return

    def _reply(self, request):
        self.commands.append((request["execute"], request.get("arguments", {})))
        answer = {"return": {}} if request["execute"] == "qmp_capabilities" else self._answer(request)
        if answer is None:
            self._socket.close()
            return False
        if answer:
            self._send({**answer, **({"id": request["id"]} if "id" in request else {})})
        return True

    def _send(self, message):
        self._socket.sendall(json.dumps(message).encode() + b"\r\n")


@pytest.fixture
def connected():
    opened = []

    def connect(answer):
        qmp = Qmp()
        fake = FakeQemu(qmp.qemu_fd, answer)
        opened.append(qmp)
        qmp.connect(10)
        return qmp, fake

    yield connect
    for qmp in opened:
        qmp.close()


def test_a_command_returns_what_qemu_returned(connected):
    qmp, fake = connected(lambda _: {"return": {"status": "running"}})
    assert qmp.execute("migrate-set-parameters", max_bandwidth=5) == {"status": "running"}
    assert fake.commands[-1] == ("migrate-set-parameters", {"max-bandwidth": 5})


def test_the_human_monitor_is_text(connected):
    qmp, fake = connected(lambda _: {"return": "RAX=0"})
    assert qmp.human("info registers -a") == "RAX=0"
    assert fake.commands[-1] == ("human-monitor-command", {"command-line": "info registers -a"})


def test_a_refusal_names_command_and_reason(connected):
    qmp, _ = connected(lambda _: {"error": {"class": "GenericError", "desc": "no such thing"}})
    with pytest.raises(QemuError, match="QEMU refused cont: no such thing"):
        qmp.execute("cont")


def test_an_end_during_a_command_is_told(connected):
    qmp, _ = connected(lambda _: None)
    with pytest.raises(QemuError, match="QEMU ended during stop"):
        qmp.execute("stop")


def test_a_silent_qemu_is_not_waited_for_for_ever(connected):
    qmp, _ = connected(lambda _: {})
    with pytest.raises(QemuError, match=r"did not answer stop within 0\.05 s"):
        qmp.execute("stop", 0.05)


def test_a_descriptor_travels_beside_its_name(connected):
    qmp, fake = connected(lambda _: {"return": {}})
    read_fd, write_fd = os.pipe()
    qmp.send_fd("state", write_fd)
    os.close(write_fd)
    assert fake.commands[-1] == ("getfd", {"fdname": "state"})
    os.write(fake.fds[0], b"through")
    os.close(fake.fds[0])
    assert os.read(read_fd, 100) == b"through"
    os.close(read_fd)


def test_a_qemu_that_ends_before_its_greeting():
    qmp = Qmp()
    with pytest.raises(QemuError, match="ended before it answered"):
        qmp.connect(10)
    qmp.close()


def test_commands_without_a_qemu():
    qmp = Qmp()
    with pytest.raises(QemuError, match="no QEMU"):
        qmp.execute("stop")
    qmp.close()
