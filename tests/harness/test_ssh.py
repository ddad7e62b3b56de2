"""Ssh against a server in this process that runs each command in a real shell."""

import select
import socket
import subprocess
import threading

import paramiko
import pytest
from blkproof.harness import ssh as ssh_module
from blkproof.harness.errors import Loss, MachineLost, SshError
from blkproof.harness.ssh import Ssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def new_key(path):
    secret = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    path.write_bytes(secret)
    key = paramiko.Ed25519Key.from_private_key_file(str(path))
    path.with_suffix(".pub").write_text(f"ssh-ed25519 {key.get_base64()}\n")
    return key


class Dom0(paramiko.ServerInterface):
    """A server that refuses as many channels as told, then runs what it is asked to."""

    def __init__(self, host_key, user_key):
        self.refusals = 0
        self.channels = 0
        self.host_key, self.user_key = host_key, user_key
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.transports = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.host_key)
            transport.start_server(server=self, event=threading.Event())
            self.transports.append(transport)

    def close(self):
        self.listener.close()
        for transport in self.transports:
            transport.close()

    def get_allowed_auths(self, username):  # noqa: ARG002  (paramiko's interface)
        return "publickey"

    def check_auth_publickey(self, username, key):
        known = username == "root" and key == self.user_key
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):  # noqa: ARG002  (paramiko's interface)
        self.channels += 1
        if self.refusals:
            self.refusals -= 1
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._execute, args=(channel, command), daemon=True).start()
        return True

    def _execute(self, channel, command):
        shell = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        threading.Thread(target=self._feed, args=(channel, shell), daemon=True).start()
        send = {shell.stdout: channel.sendall, shell.stderr: channel.sendall_stderr}
        while send:
            for stream in select.select(list(send), [], [])[0]:
                if data := stream.read1(1 << 15):
                    send[stream](data)
                else:
                    del send[stream]
                    stream.close()
        channel.send_exit_status(shell.wait())
        channel.close()

    @staticmethod
    def _feed(channel, shell):
        while data := channel.recv(1 << 15):
            shell.stdin.write(data)
            shell.stdin.flush()
        shell.stdin.close()


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """Nobody here finds out later why a connection broke, so nobody waits for it."""
    monkeypatch.setattr(ssh_module, "LOSS_GRACE_S", 0.0)


@pytest.fixture
def dom0(tmp_path):
    server = Dom0(new_key(tmp_path / "host"), new_key(tmp_path / "user"))
    yield server
    server.close()


@pytest.fixture
def ssh(dom0, tmp_path):
    connection = Ssh(dom0.port, tmp_path / "user", tmp_path / "host.pub")
    yield connection
    connection.close()


def test_status_and_both_streams_come_back(ssh):
    result = ssh.run("echo out; echo err >&2; exit 3")
    assert (result.rc, result.out, result.err, result.text()) == (3, b"out\n", b"err\n", "out")


def test_input_goes_in_and_large_output_comes_out(ssh):
    data = bytes(range(256)) * 4096
    assert ssh.run("cat", data).out == data


def test_lines_are_handed_on_while_the_command_runs(ssh, tmp_path):
    """The command ends only after its first line was heard."""
    heard = []

    def on_line(stream, line):
        heard.append((stream, line))
        (tmp_path / "go").touch()

    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    ssh.run(f"echo first; {wait}; echo E >&2; printf rest", on_line=on_line)
    assert heard[0] == ("out", "first")
    assert sorted(heard[1:]) == [("err", "E"), ("out", "rest")]


def test_a_failing_command_is_an_error_with_its_words(ssh):
    with pytest.raises(SshError, match=r"'echo no disk >&2; exit 1' ended with status 1: no disk"):
        ssh.check_run("echo no disk >&2; exit 1")


def test_a_file_is_put_whole_with_its_mode(ssh, tmp_path):
    path = tmp_path / "new dir" / "agent's.sh"
    ssh.put(b"#!/bin/sh\n", str(path), 0o755)
    assert path.read_bytes() == b"#!/bin/sh\n"
    assert path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_refused_channel_is_asked_for_again(ssh, dom0, refusals):
    ssh.connect()
    dom0.refusals = refusals
    assert ssh.run("echo hi").text() == "hi"
    assert dom0.channels == refusals + 1


def test_a_channel_that_is_always_refused_is_an_error(ssh, dom0):
    ssh.connect()
    dom0.refusals = 100
    with pytest.raises(SshError, match="SSH command 'echo hi'"):
        ssh.run("echo hi")
    assert dom0.channels == 5


def test_a_command_that_fails_is_not_run_again(ssh, dom0, tmp_path):
    ssh.run(f"echo once >> {tmp_path}/ran; exit 1")
    assert dom0.channels == 1
    assert (tmp_path / "ran").read_text() == "once\n"


def test_a_host_key_of_somebody_else_ends_it(dom0, tmp_path):
    new_key(tmp_path / "other")
    with pytest.raises(SshError, match="not this image's"):
        Ssh(dom0.port, tmp_path / "user", tmp_path / "other.pub").run("true")


def test_a_key_that_dom0_does_not_know(dom0, tmp_path):
    new_key(tmp_path / "stranger")
    with pytest.raises(SshError, match="SSH to dom0"):
        Ssh(dom0.port, tmp_path / "stranger", tmp_path / "host.pub").run("true")


def test_nobody_listens(tmp_path):
    new_key(tmp_path / "user")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SshError, match=f"port {port}"):
        Ssh(port, tmp_path / "user", tmp_path / "user.pub").run("true")


def test_a_command_that_never_ends_is_given_up(ssh):
    with pytest.raises(SshError, match=r"did not end within 0\.2 s"):
        ssh.run("sleep 5", timeout_s=0.2)


def test_limits_are_stretched_for_a_slow_accelerator(dom0, tmp_path):
    ssh = Ssh(dom0.port, tmp_path / "user", tmp_path / "host.pub", slowness=100)
    assert ssh.run("sleep 0.5; echo done", timeout_s=0.1).text() == "done"
    ssh.close()


def test_a_lost_machine_ends_a_running_command(dom0, tmp_path):
    def check():
        raise MachineLost(Loss.DOM0_PANIC, "fio", 1.0, "sign")

    ssh = Ssh(dom0.port, tmp_path / "user", tmp_path / "host.pub", check=check)
    with pytest.raises(MachineLost):
        ssh.run("sleep 5")
    ssh.close()


def test_a_connection_that_breaks_is_told(ssh, dom0):
    ssh.connect()
    threading.Timer(0.2, dom0.transports[0].close).start()
    with pytest.raises(SshError, match="'sleep 5': the connection broke"):
        ssh.run("sleep 5")


def test_a_connection_that_breaks_because_the_machine_died_is_a_loss(dom0, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_module, "LOSS_GRACE_S", 20.0)
    lost = threading.Event()

    def check():
        if lost.is_set():
            raise MachineLost(Loss.QEMU_DIED, "fio", 1.0, "QEMU was ended by SIGKILL")

    ssh = Ssh(dom0.port, tmp_path / "user", tmp_path / "host.pub", check=check)
    ssh.connect()
    threading.Timer(0.1, dom0.transports[0].close).start()
    threading.Timer(0.4, lost.set).start()
    with pytest.raises(MachineLost):
        ssh.run("sleep 5")


def test_after_close_the_next_command_connects_anew(ssh, dom0):
    ssh.run("true")
    ssh.close()
    assert ssh.run("echo again").text() == "again"
    assert len(dom0.transports) == 2
