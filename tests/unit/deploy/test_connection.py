"""What hosts send over SSH is bounded and text, where pyinfra reads it: real servers, real connections, real pyinfra.

The twins let pyinfra and paramiko read as they do by themselves: they see what would happen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import ProxyCommand
from pyinfra.connectors.util import SUDO_PASSWORD_REQUIRED_LINES

from privnet.deploy import connection
from privnet.deploy.host_keys import Identity

HERE = Path(__file__).parent
FINE = 'say(b"fine"); end(0)'
MIB = 2**20


def _served(*words: str) -> Iterator[int]:
    command = [sys.executable, str(HERE / "lying_server.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a server that answers what it is asked to."""
    yield from _served()


def asked(port: int, how: str, tmp_path: Path, *questions: str) -> dict[str, Any]:
    """What came of one host's question each; nothing of it is a traceback, as far as it is read our way."""
    (tmp_path / "questions").write_text(json.dumps(questions))
    targets = [f"{port}:{how}"] * len(questions)
    command = [sys.executable, str(HERE / "asking_client.py"), *targets, str(tmp_path / "questions")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    found["traceback"] = "Traceback" in done.stderr
    assert how != "bounded" or not found["traceback"], done.stderr
    return found


NO_TEXT = (
    'say(b"one\\xff\\ntwo\\x1b[31m\\tthree"); complain(b"\\x1b]0;owned\\x07 \\xc3\\xbc \\xff\\xc2\\x9b31m\\n"); end(0)'
)


def test_what_is_no_text_is_read_as_some(server: int, tmp_path: Path) -> None:
    host = asked(server, "bounded", tmp_path, NO_TEXT)["hosts"][0]
    assert (host["done"], host["stdout"]) == (True, ["one?", "two?[31m\tthree"])
    assert host["stderr"] == ["\\x1b]0;owned\\x07 ü \ufffd\\x9b31m"]


def test_without_it_an_answer_with_a_byte_that_is_no_text_is_lost(server: int, tmp_path: Path) -> None:
    found = asked(server, "as-it-is", tmp_path, NO_TEXT)
    assert found["traceback"] and found["hosts"][0]["stdout"] == []


TOO_MUCH = {
    "bytes": ('[say(b"x" * 2**20) for _ in range(200)]', "an answer of more than 67,108,864 bytes"),
    "lines": ('[say(b"\\n" * 2**20) for _ in range(200)]', "an answer of more than 1,000,000 lines"),
    "complaints": ('[complain(b"x\\n" * 2**19) for _ in range(200)]', "complaints of more than 1,048,576 bytes"),
    "over its window": ('flood(b"x" * 30000)', "an answer of more than 67,108,864 bytes"),
    "after a success": ('channel.send_exit_status(0); flood(b"x" * 30000)', "an answer of more than 67,108,864 bytes"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_ends_one_connection_with_a_line_and_holds_up_nobody(server: int, tmp_path: Path, what: str) -> None:
    lie, said = TOO_MUCH[what]
    found = asked(server, "bounded", tmp_path, lie, FINE)
    liar, other = found["hosts"]
    line = f"it sends {said}: its connection was closed"
    assert (liar["done"], liar["stdout"], liar["stderr"], liar["complaint"]) == (False, [], [line], line)
    assert (other["done"], other["stdout"]) == (True, ["fine"])
    assert found["grown"] < 1.5 * connection.OUTPUT_AT_MOST / MIB
    assert max(found["wait"], other["seconds"]) < 5 < 60 > liar["seconds"]


def test_a_proxy_that_has_ended_is_ended_without_a_traceback() -> None:
    proxy = ProxyCommand("true")
    proxy.process.wait()
    with pytest.raises(ProcessLookupError):
        proxy.close()
    connection.connections_to(Identity("h1", None, None, ""))(proxy)
    proxy.close()


def test_without_it_memory_is_what_a_host_wants(server: int, tmp_path: Path) -> None:
    lie = '[say((b"x" * 4095 + b"\\n") * 256) for _ in range(150)]; end(0)'
    found = asked(server, "as-it-is", tmp_path, lie)
    assert found["hosts"][0]["done"] and found["grown"] > 1.5 * connection.OUTPUT_AT_MOST / MIB


def test_as_much_as_is_let_through_takes_no_longer_than_it_is_long(server: int, tmp_path: Path) -> None:
    """A line without end, whose beginning paramiko would look at again with each piece; and lines without content."""
    long = '[say(b"x" * 2**20) for _ in range(60)]; end(0)'
    short = 'say(b"a\\n" * 900_000); end(0)'
    found = asked(server, "bounded", tmp_path, long, FINE, short)
    assert [len(host["stdout"]) for host in found["hosts"]] == [1, 1, 900_000]
    assert len(found["hosts"][0]["stdout"][0]) == 60 * MIB
    assert max(host["seconds"] for host in found["hosts"]) < 60
    assert found["wait"] < 5 and found["grown"] < 1000


def test_of_a_command_that_fails_the_last_words_are_told(server: int, tmp_path: Path) -> None:
    lie = 'say(b"out\\n" * 1000); complain(b"\\n".join(b"%d" % n + b"x" * 2000 for n in range(300))); end(1)'
    host = asked(server, "bounded", tmp_path, lie)["hosts"][0]
    assert host["done"] is False and host["stdout"] == ["out"] * connection.LINES_KEPT
    assert [line[:4] for line in host["stderr"]] == [f"{n}x" for n in range(290, 300)]
    assert {len(line) for line in host["stderr"]} == {connection.WIDTH_KEPT}
    assert host["complaint"] == host["stderr"][-1]


@pytest.mark.parametrize("asks", SUDO_PASSWORD_REQUIRED_LINES)
@pytest.mark.parametrize("how", ["bounded", "as-it-is"])
@pytest.mark.parametrize("where", ["say", "complain"])
def test_no_host_makes_pyinfra_ask_for_a_password(server: int, tmp_path: Path, asks: str, how: str, where: str) -> None:
    """There is no terminal here, so that the twin finds nobody to ask, with an exception that would end a run."""
    host = asked(server, how, tmp_path, f'{where}(b"{asks}\\n"); end(1)')["hosts"][0]
    if how == "bounded":
        told = [f"{asks}: let this user use sudo without a password"]
        assert (host["done"], host["stdout"] + host["stderr"]) == (False, told)
    else:
        assert host["done"] is None and host["stderr"][0].startswith("EOFError")


def test_a_packet_has_an_end(server: int, tmp_path: Path) -> None:
    found = asked(server, "bounded", tmp_path, 'flood(b"x" * (2**20 + 2**15))', FINE)
    assert [host["done"] for host in found["hosts"]] == [False, True]
    twin = asked(server, "bounded", tmp_path, 'flood(b"x" * (2**20 - 2**15))', FINE)
    assert twin["hosts"][0]["stderr"] == ["it sends an answer of more than 67,108,864 bytes: its connection was closed"]


def test_a_greeting_has_an_end(tmp_path: Path) -> None:
    for port in _served("greet", "no end, "):
        found = asked(port, "bounded", tmp_path, FINE)
        assert found["refused"] and found["peak"] < 200


FLEET = {"fleet": "test", "hosts": {"h1": {"address": "192.0.2.1"}}}


def test_every_host_is_read_so_and_its_data_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "prod").mkdir()
    (tmp_path / "prod" / "fleet.yaml").write_text(json.dumps(FLEET))
    shim = tmp_path / "prod.py"
    shim.write_text("from privnet.deploy.inventory import groups\nglobals().update(groups())\n")
    command = [str(Path(sys.executable).parent / "pyinfra"), str(shim), "debug-inventory", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)[0]["data"]
    assert data["ssh_paramiko_connect_kwargs"] == {"transport_factory": "Function: connection"}
