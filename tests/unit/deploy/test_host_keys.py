"""A host that answers with another SSH host key is refused in our words: a real server, a real connection."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError

from privnet.deploy.host_keys import explain_other_host_keys

SERVER = """
import socket, paramiko
key = paramiko.ECDSAKey.generate()
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], key.get_name(), key.get_base64(), flush=True)
while True:
    transport = paramiko.Transport(listening.accept()[0])
    transport.add_server_key(key)
    try:
        transport.start_server(server=paramiko.ServerInterface())
    except (EOFError, paramiko.SSHException):
        pass
"""
OTHER = """
import paramiko
key = paramiko.ECDSAKey.generate()
print(key.get_name(), key.get_base64())
"""


@pytest.fixture
def server() -> Iterator[tuple[int, str]]:
    """The port of an SSH server on this machine that nobody can log in to, and its host key."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, *key = process.stdout.readline().split()
        yield int(port), " ".join(key)
        process.kill()


def told(port: int, known_hosts: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of an attempt to connect."""
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": port,
        "ssh_user": "nobody",
        "ssh_password": "wrong",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "ssh_known_hosts_file": str(known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    state = State(Inventory(([("par-a-1", data)], {})), Config(CONNECT_TIMEOUT=10))
    explain_other_host_keys({"127.0.0.1": "other"}, "inventory/other")  # an inventory that was read before
    explain_other_host_keys({"127.0.0.1": "par-a-1"}, "inventory/prod")
    with caplog.at_level(logging.INFO, "pyinfra"), pytest.raises(PyinfraError, match="No hosts remaining"):
        connect_all(state)
    return caplog.text


@pytest.mark.parametrize("known", ["another key", "no key"])
def test_another_host_key_is_refused_with_what_to_do(
    known: str, server: tuple[int, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, _ = server
    other = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, check=True).stdout
    where = f"[127.0.0.1]:{port}" if known == "another key" else "[192.0.2.1]:22"
    (tmp_path / "known_hosts").write_text(f"{where} {other}")
    said = told(port, tmp_path / "known_hosts", caplog)
    assert said.count("PN508: it answers with another SSH host key than the lock file has") == 1
    assert "`privnet forget inventory/prod par-a-1`, then run again" in said
    assert "ssh-keygen" not in said
    assert "known_hosts" not in said


def test_a_host_with_its_own_key_is_refused_for_what_it_is(
    server: tuple[int, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The twin: the key is right, the password is not."""
    port, key = server
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    said = told(port, tmp_path / "known_hosts", caplog)
    assert "Authentication error" in said
    assert "PN508" not in said
