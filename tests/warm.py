"""pyinfra, begun by a process that has imported it already: what its start costs is paid once, not with each run.

    warm.run(["-y", "inventory/lab.py", "deploys/private_network.py"], environment)

Each run is a fork of that process, with arguments, environment, directory and output of its own; nothing else tells it
from one that was begun at the prompt. What measures seconds or sends signals begins the program itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

KNOWN = (
    "pyinfra_cli.main",  # the first: it makes the standard library cooperative
    "pyinfra.connectors.ssh",
    "privnet.deploy.inventory",
    "privnet.deploy.stages",
)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], directory: Path | str = "/", timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What ``pyinfra ARGUMENTS`` ends with and prints; its standard input is empty.

    :param timeout: seconds; then it is killed and subprocess.TimeoutExpired raised
    """
    server = _server()
    assert server.stdin and server.stdout
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(tempfile.NamedTemporaryFile("r", errors="replace", newline=""))
        errors = stack.enter_context(tempfile.NamedTemporaryFile("r", errors="replace", newline=""))
        wanted = {
            "arguments": ["pyinfra", *arguments],
            "environment": dict(environment),
            "directory": str(directory),
            "streams": [os.devnull, output.name, errors.name],
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        }
        server.stdin.write(json.dumps(wanted).encode() + b"\n")
        process = int(server.stdout.readline())
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.kill(process, signal.SIGKILL)
            server.stdout.readline()
            raise subprocess.TimeoutExpired(wanted["arguments"], timeout, output.read(), errors.read())
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(wanted["arguments"], code, output.read(), errors.read())


@cache
def _server() -> subprocess.Popen[bytes]:
    """It ends with the process that asked for it, whose end it sees at its standard input.

    Nothing is buffered here: a line that was read ahead would be waited for in vain.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-P", __file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, cwd="/", env=environment)


def _serve() -> None:
    for name in KNOWN:
        importlib.import_module(name)
    from gevent import monkey

    fork, wait = monkey.get_original("os", "fork"), monkey.get_original("os", "waitpid")
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        if not (child := fork()):
            _become(**json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(wait(child, 0)[1]), flush=True)


def _become(
    arguments: list[str], environment: dict[str, str], directory: str, streams: list[str], niceness: int
) -> NoReturn:
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor; what was read ahead is not for this one
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = arguments
    from pyinfra_cli.main import main

    sys.exit(main())


if __name__ == "__main__":
    _serve()
