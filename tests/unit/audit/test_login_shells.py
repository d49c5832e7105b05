"""Whatever a user's login shell is, and says by itself: what a run, an audit and an import execute is the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from privnet.audit.connection import Connection, Dialogue
from privnet.audit.finding import Unanswered
from privnet.audit.session import Session
from privnet.importer.ask import Target
from privnet.importer.ask import _converse as converse
from privnet.sudo import with_remedy

SHELLS = ("bash", "rbash", "dash", "zsh", "fish", "tcsh", "csh", "ksh", "mksh", "yash")
THERE = [shell for shell in SHELLS if shutil.which(shell)]
"""Of these, the ones that this machine has; tests/lab/test_surroundings.py has some on hosts."""
PASSWORD = "sudo: a password is required"
SAID = f"{PASSWORD}: let this user use sudo without a password"
NOISE = "echo Welcome; echo warning: old >&2; printf 'no end of a line'; "


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `ssh` and `sudo` of this test are: the one executes as sshd does, the other what it is given."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", f"{found}:{os.environ['PATH']}")
    _program(found / "sudo", '[ "$1" = -n ] && shift && exec "$@"')
    return found


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def logs_in_to(programs: Path, shell: str, noise: str = "") -> None:
    """Let `ssh` end with the login shell, which is given the last argument (sshd(8), LOGIN PROCESS)."""
    _program(programs / "ssh", f'for last; do :; done; {noise}exec {shutil.which(shell)} -c "$last"')


def connection() -> Connection:
    return Connection("h1", "h1", (), sudo=True)


@pytest.mark.parametrize("noise", ["", NOISE], ids=["quiet", "noisy"])
@pytest.mark.parametrize("shell", THERE)
def test_an_audit_and_an_import_ask_by_any_login_shell(programs: Path, shell: str, noise: str) -> None:
    logs_in_to(programs, shell, noise)
    answer = connection().ask("printf '\\n%s\\n' \"##mark it's\"", "##mark")
    assert answer.endswith(b"\n##mark it's\n")
    session = Session(connection())
    session.close()
    assert b"##privnet user" in converse(Dialogue(Target("h1").argv(None)))


@pytest.mark.parametrize("noise", ["", NOISE], ids=["quiet", "noisy"])
@pytest.mark.parametrize("shell", THERE)
def test_sudo_s_complaint_is_said_by_all(programs: Path, shell: str, noise: str) -> None:
    """As a run says it (tests/unit/deploy/test_connection.py); sudo needs no terminal to be asked for it."""
    logs_in_to(programs, shell, noise)
    _program(programs / "sudo", f"[ \"$1\" = -n ] && echo '{PASSWORD}' >&2; exit 1")
    _program(programs / "id", "echo 1000")
    for ask in (
        lambda: connection().ask("echo '##mark'", "##mark"),
        lambda: Session(connection()),
        lambda: converse(Dialogue(Target("h1").argv(None))),
    ):
        with pytest.raises(Unanswered) as caught:
            ask()
        assert str(caught.value) == SAID == with_remedy(PASSWORD)


def test_a_prober_that_never_starts_is_not_waited_for_without_end(programs: Path) -> None:
    logs_in_to(programs, "sh", "yes; ")
    with pytest.raises(Unanswered, match="the prober did not start"):
        Session(connection())
