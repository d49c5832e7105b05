"""Who a host is: real servers, real connections, and OpenSSH's own reading of the user's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from privnet.deploy.connection import connections_to
from privnet.deploy.host_keys import Identity, OtherHostKey
from privnet.known_hosts import Login, objection, ssh_settings

SERVER = """
import socket, sys, paramiko
keys = {"rsa": paramiko.RSAKey.generate(2048), "ecdsa": paramiko.ECDSAKey.generate()}
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1])
for key in keys.values():
    print(key.get_name(), key.get_base64(), flush=True)
while True:
    transport = paramiko.Transport(listening.accept()[0])
    for name in sys.argv[1:]:
        transport.add_server_key(keys[name])
    try:
        transport.start_server(server=paramiko.ServerInterface())
    except (EOFError, paramiko.SSHException):
        pass
"""
LOGIN = Login("192.0.2.12", 2222, "root")
PLACE = "[192.0.2.12]:2222"
OWN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGBDD8TZ1IS6Ca7RcYWd27ZNMaHJ1r9/oa11uOoCmKyP"
FORGET = "privnet forget inventory/prod par-a-1"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, str, str]]:
    """The port of an SSH server on this machine, and its RSA and ECDSA keys."""
    command = [sys.executable, "-c", SERVER, *request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, rsa, ecdsa = (process.stdout.readline().strip() for _ in range(3))
        yield int(port), rsa, ecdsa
        process.kill()


def connect(port: int, identity: Identity) -> None:
    """As paramiko's client does it, up to the login."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
    with pytest.raises(paramiko.AuthenticationException):
        client.connect(
            "127.0.0.1",
            port,
            "x",
            "x",
            allow_agent=False,
            look_for_keys=False,
            transport_factory=connections_to(identity),
        )
    client.close()


def pinned(key: str | None) -> Identity:
    return Identity("par-a-1", key, LOGIN, FORGET)


@pytest.mark.parametrize("server", [("rsa", "ecdsa")], indirect=True)
@pytest.mark.parametrize("which", [1, 2])
def test_a_server_with_keys_of_several_types_is_known_by_any_of_them(server: tuple[int, str, str], which: int) -> None:
    """It is asked for the type that is known, for RSA by its newer signatures."""
    identity = pinned(str(server[which]))
    connect(server[0], identity)
    assert identity.key == server[which]


@pytest.mark.parametrize("server", [("rsa",)], indirect=True)
def test_the_key_of_the_first_connection_is_kept_whatever_its_type(server: tuple[int, str, str]) -> None:
    identity = pinned(None)
    connect(server[0], identity)
    assert identity.key == server[1] and identity.key.startswith("ssh-rsa ")
    connect(server[0], identity)


@pytest.mark.parametrize("server", [("ecdsa",)], indirect=True)
def test_a_host_with_another_key_than_the_lock_file_is_refused_with_what_to_do(server: tuple[int, str, str]) -> None:
    with pytest.raises(OtherHostKey) as error:
        connect(server[0], pinned(OTHER))
    assert str(error.value) == (
        "PN508: it answers with another SSH host key than the lock file has: another machine is at its address, or it "
        "was reinstalled. Nothing was sent to it. If you know that it was reinstalled: "
        f"`{FORGET}`, then run again"
    )


@pytest.mark.parametrize("server", [("ecdsa",)], indirect=True)
def test_a_host_that_shows_another_key_in_the_middle_of_a_run_is_refused(server: tuple[int, str, str]) -> None:
    identity = pinned(None)
    identity.key = OTHER  # of its first connection
    with pytest.raises(OtherHostKey) as error:
        connect(server[0], identity)
    assert str(error.value) == (
        "PN508: it answers with another SSH host key than at the beginning of this run: another machine is at its "
        "address now, or its keys were made anew just now. Nothing was sent over this connection"
    )


# --- what the user's own files say --------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """As of ssh(1); of two files the second is not there."""
    files = f"{tmp_path}/known_hosts {tmp_path}/missing"
    return {"stricthostkeychecking": "ask", "userknownhostsfile": files, "globalknownhostsfile": f"{tmp_path}/global"}


def says(settings: dict[str, str], *lines: str, hashed: bool = False) -> str | None:
    file = Path(settings["userknownhostsfile"].split()[0])
    file.write_text("".join(f"{line}\n" for line in lines))
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    found = objection(LOGIN, OWN, settings)
    return None if found is None else str(found).replace(str(file.parent), "DIR")


def test_a_key_that_is_known_or_new_is_accepted(settings: dict[str, str]) -> None:
    assert says(settings) is None
    assert says(settings, f"192.0.2.99 {OTHER}", f"192.0.2.12 {OTHER}") is None, "another host, and another port"
    strict = settings | {"stricthostkeychecking": "true"}
    assert says(strict, f"{PLACE} {OWN}") is None
    assert says(strict, f"{PLACE} {OWN}", hashed=True) is None
    assert says(strict, f"{PLACE} {OTHER}", f"{PLACE} {OWN}") is None, "a host may have two"
    assert says(settings | {"stricthostkeychecking": "false"}, f"{PLACE} {OTHER}") is None


@pytest.mark.parametrize("hashed", [False, True])
def test_another_key_in_a_file_of_the_user_is_refused_with_the_file(settings: dict[str, str], hashed: bool) -> None:
    assert says(settings, "# a comment", f"{PLACE} {OTHER}", hashed=hashed) == (
        "DIR/known_hosts line 2 has another SSH host key for it: another machine is at its address, or its keys were "
        "made anew. If you know that they were: `ssh-keygen -f DIR/known_hosts -R [192.0.2.12]:2222`"
    )


def test_a_file_for_all_users_is_read_too(settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "global").write_text(f"{PLACE} ecdsa-sha2-nistp256 AAAA\n")
    assert str(says(settings)).startswith("DIR/global line 1 has another SSH host key for it: ")


def test_a_revoked_key_is_refused(settings: dict[str, str]) -> None:
    said = says(settings, f"{PLACE} {OWN}", f"@revoked * {OWN}")
    assert said == "DIR/known_hosts line 2 has its SSH host key as revoked"
    assert says(settings, f"{PLACE} {OWN}", f"@revoked * {OTHER}") is None


def test_a_host_that_an_authority_vouches_for_is_refused(settings: dict[str, str]) -> None:
    line = f"@cert-authority [192.0.2.*]:2222 {OTHER}"
    assert says(settings, line) == (
        "DIR/known_hosts line 1 says that an authority vouches for it (@cert-authority), which is not asked for here. "
        f"Put its key beside that line, when you have compared it: {PLACE} {OWN}"
    )
    assert says(settings, line, f"{PLACE} {OWN}") is None


def test_a_user_who_accepts_no_new_key_is_heard(settings: dict[str, str]) -> None:
    assert says(settings | {"stricthostkeychecking": "true"}) == (
        "no file of yours knows its SSH host key, and your SSH configuration says StrictHostKeyChecking yes. "
        f"When you have compared it, add this line to DIR/known_hosts: {PLACE} {OWN}"
    )


def test_an_alias_is_what_files_know_a_host_by(settings: dict[str, str]) -> None:
    assert str(says(settings | {"hostkeyalias": "h1"}, f"h1 {OTHER}")).startswith("DIR/known_hosts line 1 has another")


def test_openssh_tells_its_configuration() -> None:
    found = ssh_settings(LOGIN)
    assert (found["hostname"], found["port"], found["user"]) == ("192.0.2.12", "2222", "root")
    assert found["userknownhostsfile"] and found["stricthostkeychecking"]


def reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str) -> None:
    """Let ssh(1) read this configuration."""
    ssh, file = shutil.which("ssh"), tmp_path / "config"
    file.write_text(config)
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {ssh} -F {file} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("line", ["NoSuchOption yes", "StrictHostKeyChecking perhaps", "Port"])
def test_a_configuration_that_ssh_refuses_lets_no_new_key_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    reading(monkeypatch, tmp_path, f"StrictHostKeyChecking yes\n{line}\n")
    said = str(objection(LOGIN, OWN))
    assert said.startswith("ssh does not accept its configuration, so what that says of host keys is not known: ")
    assert f"{tmp_path}/config" in said


def test_a_configuration_that_ssh_accepts_lets_a_new_key_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The twin."""
    reading(monkeypatch, tmp_path, f"UserKnownHostsFile {tmp_path}/none\nGlobalKnownHostsFile {tmp_path}/none\n")
    assert objection(LOGIN, OWN) is None


def test_a_user_to_whom_ssh_says_nothing_has_its_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'No user exists for uid 12345' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ssh_settings(LOGIN)["stricthostkeychecking"] == "ask"


@pytest.mark.parametrize("krl", [False, True])
def test_a_key_in_the_file_of_revoked_ones_is_refused(settings: dict[str, str], tmp_path: Path, krl: bool) -> None:
    listed, file = tmp_path / "listed", tmp_path / "revoked"
    listed.write_text(f"{OWN} of somebody\n")
    file.write_text(listed.read_text())
    if krl:
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(file), str(listed)], check=True, capture_output=True)
    revoking = settings | {"revokedhostkeys": str(file)}
    assert says(revoking, f"{PLACE} {OWN}") == "DIR/revoked (RevokedHostKeys) has its SSH host key as revoked"
    assert objection(LOGIN, OTHER, revoking | {"stricthostkeychecking": "no"}) is None, "the twin"


def test_a_file_of_revoked_keys_that_cannot_be_read_lets_none_in(settings: dict[str, str], tmp_path: Path) -> None:
    said = says(settings | {"revokedhostkeys": str(tmp_path / "away")}, f"{PLACE} {OWN}")
    assert said == "DIR/away (RevokedHostKeys) cannot be read, and ssh refuses every host key then"
