"""Why a host cannot be reached is one line, where it happens and in the summary: real `pyinfra`, real sockets."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import ConnectError
from test_over_ssh import SHIM, made, served  # noqa: F401  # `made` is a fixture
from test_runs import DEPLOY, Fleet

import warm
from privnet.deploy.unreached import reason

Data = dict[str, Any]


def nobody(stack: ExitStack, folder: Path) -> Data:
    """A port on which nothing listens."""
    taken = stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    return {"ssh_port": taken.getsockname()[1]}


def silent(stack: ExitStack, folder: Path) -> Data:
    """A host that takes connections and says nothing, as one whose sshd is stopped."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {"ssh_port": server.getsockname()[1]}


def through(command: str) -> Callable[[ExitStack, Path], Data]:
    """A host behind a command, as every host of a lab and whoever is behind a bastion."""

    def data(stack: ExitStack, folder: Path) -> Data:
        (folder / "says").write_text("echo first >&2; printf 'no such place \\033\\n' >&2; exit 3\n")
        said = command.replace("{folder}", str(folder))
        (folder / "ssh_config").write_text(f"Host behind\n  ProxyCommand {said}\n")
        return {"ssh_hostname": "behind", "ssh_config_file": str(folder / "ssh_config")}

    return data


AWAY: dict[str, tuple[Callable[[ExitStack, Path], Data], str]] = {
    "nobody listens": (nobody, r"Could not connect \(.*127\.0\.0\.1\)"),
    "a host that says nothing": (silent, r"it does not answer: nothing of SSH came within [0-9.]+ s"),
    "a lab host that is off": (through("sleep 60"), r"it does not answer: nothing of SSH came within [0-9.]+ s"),
    "a lab host that is not booted": (through("false"), "its ProxyCommand has ended with status 1"),
    "a bastion that says why": (
        through("sh {folder}/says"),
        r"its ProxyCommand has ended with status 3: no such place \\x1b",
    ),
}


def run(made: Fleet, change: Callable[[ExitStack, Path], Data]) -> tuple[str, dict[str, Any]]:  # noqa: F811
    """What a run prints, and its outcome; h2 is somewhere else."""
    shim, outcome = made.directory.with_suffix(".py"), made.directory.with_name("outcome.json")
    shim.write_text(SHIM)
    with ExitStack() as stack, served(made, {}) as data:
        data["h2"] |= change(stack, made.directory.parent)
        shim.with_name("servers.json").write_text(json.dumps(data))
        environment = {**os.environ, "PYINFRA_PROGRESS": "off", "PRIVNET_OUTCOME": str(outcome)}
        done = warm.run(["-y", str(shim), str(DEPLOY)], environment, timeout=120)
    return done.stdout + done.stderr, json.loads(outcome.read_text())["hosts"]


@pytest.mark.parametrize("what", AWAY)
def test_a_host_that_cannot_be_reached_has_a_reason(made: Fleet, what: str) -> None:  # noqa: F811
    change, wanted = AWAY[what]
    output, hosts = run(made, change)
    assert hosts["h2"]["state"] == "unreached" and hosts["h1"]["state"] == "changed", output
    assert re.fullmatch(wanted, hosts["h2"]["why"]), hosts["h2"]["why"]
    assert "Traceback" not in output and "No existing session" not in output
    assert len([line for line in output.splitlines() if "[h2]" in line]) == 1, output


def test_paramiko_is_silent_before_the_first_connection() -> None:
    """The inventory is all that pyinfra has read by then; without it a traceback is printed."""
    log = "import logging; log = logging.getLogger('paramiko.transport')"
    program = f"{log}; log.error('Traceback before'); import privnet.deploy.inventory; log.error('Traceback after')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stderr == "Traceback before\n"


def errors() -> Iterator[tuple[BaseException, str]]:
    from paramiko import SSHException

    for cause, said in (
        (SSHException("PN508: another key"), "PN508: another key"),
        (SSHException("two\n  lines"), "two lines"),
        (SSHException(), "SSH error ()"),
        (OSError(111, "Connection refused"), "Could not connect ([Errno 111] Connection refused)"),
        (TimeoutError("timed out"), "Could not connect (timed out)"),
        (EOFError(), "EOF error ()"),
    ):
        words = {SSHException: "SSH error", EOFError: "EOF error"}.get(type(cause), "Could not connect")
        try:
            try:
                raise cause
            except type(cause) as error:
                raise ConnectError(f"{words} ({error})")  # noqa: B904 - as pyinfra raises it
        except ConnectError as error:
            yield error, said


def test_a_reason_is_one_line_without_the_words_of_the_library() -> None:
    for error, said in errors():
        assert reason(error) == said
    assert len(reason(ConnectError("x" * 10_000))) == 500
