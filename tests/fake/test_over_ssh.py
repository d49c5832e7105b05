"""The real `pyinfra` command over SSH servers on this machine, one of which lies: every byte comes by paramiko.

On hosts that are one, `tests/lab/test_hostile_host.py` does the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_runs import DEPLOY, Fleet

import warm

SERVER = Path(__file__).parents[1] / "unit" / "deploy" / "lying_server.py"
LIAR = "h2"
ENDLESS = '[say(b"x" * 2**20) for _ in range(100)]; end(0)'
ENDLESS_SAID = "it sends an answer of more than 67,108,864 bytes: its connection was closed"
ESCAPES = 'complain(b"\\x1b]0;owned\\x07\\x1b[31;1m\\xc2\\x9bevil\\xff"); end(1)'
ESCAPES_SAID = "\\x1b]0;owned\\x07\\x1b[31;1m\\x9bevil\ufffd"
SHIM = """
import json
from pathlib import Path
from privnet.deploy.inventory import groups as _groups
_data = json.loads(Path(__file__).with_name("servers.json").read_text())
globals().update({group: [(name, data | _data[name]) for name, data in hosts] for group, hosts in _groups().items()})
"""
LIES = {
    "a question, without end": ("question", ENDLESS, f"it gave no answer: {ENDLESS_SAID}"),
    "a question, with escapes": ("question", ESCAPES, f"it gave no answer: {ESCAPES_SAID}"),
    "a question, with random bytes": ("question", "say(os.urandom(10**7)); end(0)", "its answer is not complete: "),
    "a program, without end": ("program", ENDLESS, ENDLESS_SAID),
    "a program, with escapes": ("program", ESCAPES, ESCAPES_SAID),
    "a program, with random bytes": ("program", "say(os.urandom(10**7)); end(1)", "its program failed without a word"),
    "a question, with a connection that ends": (
        "question",
        "os._exit(0)",
        "it gave no answer: the connection was lost",
    ),
    "a program, with a connection that ends": ("program", "os._exit(0)", "the connection was lost"),
    "a confirmation, without end": ("confirmation", ENDLESS, ENDLESS_SAID),
}


@contextmanager
def served(made: Fleet, lies: dict[str, str]) -> Iterator[dict[str, dict[str, object]]]:
    """A server for each host, and what reaches it."""
    servers, data, planned = [], {}, made.planned()
    for name, lines in made.answers.items():
        text = made.directory.with_name(f"{name}.txt")
        text.write_text("\n".join(lines) + "\n")
        (then := text.with_suffix(".planned")).write_text("\n".join(planned[name]) + "\n")
        answers = {
            kind: f"say(open({str(file)!r}, 'rb').read()); end(0)"
            for kind, file in (("question", text), ("confirmation", then))
        } | (lies if name == LIAR else {})
        (file := text.with_suffix(".json")).write_text(json.dumps(answers))
        command = [sys.executable, str(SERVER), "run", str(file)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        servers.append(server)
        assert server.stdout is not None
        login = {"ssh_user": "x", "ssh_password": "x", "ssh_allow_agent": False, "ssh_look_for_keys": False}
        trust = {"ssh_known_hosts_file": "/dev/null", "ssh_strict_host_key_checking": "no"}
        data[name] = {"ssh_hostname": "127.0.0.1", "ssh_port": int(server.stdout.readline()), **login, **trust}
    try:
        yield data
    finally:
        for server in servers:
            with server:
                server.kill()


def run(made: Fleet, **lies: str) -> tuple[int, str, dict[str, tuple[str, str]]]:
    """A run's exit code, what it printed, and what became of each host, with the reason."""
    shim, outcome = made.directory.with_suffix(".py"), made.directory.with_name("outcome.json")
    shim.write_text(SHIM)
    with served(made, lies) as data:
        shim.with_name("servers.json").write_text(json.dumps(data))
        environment = {**os.environ, "PYINFRA_PROGRESS": "off", "PRIVNET_OUTCOME": str(outcome)}
        done = warm.run(["-y", str(shim), str(DEPLOY)], environment, timeout=120)
    hosts = json.loads(outcome.read_text())["hosts"]
    became = {name: (host["state"], host["why"]) for name, host in hosts.items()}
    return done.returncode, done.stdout + done.stderr, became


@pytest.fixture
def made(tmp_path: Path) -> Fleet:
    """A fleet with something to do on each host."""
    made = Fleet(tmp_path / "test", 2)
    made.project("p1", 1, ["h1", "h2", "h3"])
    return made


@pytest.mark.parametrize("what", LIES)
def test_a_lie_costs_one_host_and_a_line(made: Fleet, what: str) -> None:
    to, lie, said = LIES[what]
    code, output, became = run(made, **{to: lie})
    state, why = became.pop(LIAR)
    assert (code, state, became) == (1, "failed", dict.fromkeys(("h1", "h3"), ("changed", ""))), output
    assert why.startswith(said) and "\n" not in why and len(why) < 300
    assert "Traceback" not in output
    assert not set(re.sub("\x1b\\[[0-9;]*m", "", output)) & {*map(chr, range(32)), "\x7f", "\x9b"} - {"\n", "\t"}
    assert len([line for line in output.splitlines() if said[:40] in line]) <= 2
    assert max(map(len, output.splitlines())) < 400


def test_honest_servers_are_deployed_to(made: Fleet) -> None:
    """The twin of all of them."""
    code, output, became = run(made)
    assert (code, became) == (0, dict.fromkeys(("h1", "h2", "h3"), ("changed", ""))), output
