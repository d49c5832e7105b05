"""pyinfra, in a process of its own, that asks servers on this machine one thing each; prints what came of it as JSON.

Arguments: ``PORT:bounded`` or ``PORT:as-it-is`` for each host, and a file with what each is asked.
"""

from __future__ import annotations

from pyinfra_cli.main import main as _main  # noqa: F401  isort: skip  # it replaces what blocks

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError

from privnet.deploy.connection import bounded, connections_to
from privnet.deploy.host_keys import Identity

SECONDS = 60
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # as a run has it


def asked(host: Any, what: str, bounding: bool) -> dict[str, Any]:
    """What comes of a command, how long it takes, and how long this greenlet's neighbours waited."""
    transport = host.connector.client.get_transport()
    begun = time.monotonic()
    try:
        with bounded(transport if bounding else None), gevent.Timeout(SECONDS, TimeoutError("no end")):
            done, output = host.run_shell_command(f"#{what}")
        found = {"done": done, "stdout": output.stdout_lines, "stderr": output.stderr_lines}
    except Exception as error:
        found = {"done": None, "stdout": [], "stderr": [f"{type(error).__name__}: {error}"]}
    found["complaint"] = getattr(transport, "complaint", "")
    return found | {"seconds": time.monotonic() - begun}


def longest_wait(worst: list[float]) -> None:
    """What any other host would wait for its turn."""
    while True:
        begun = time.monotonic()
        gevent.sleep(0.01)
        worst[0] = max(worst[0], time.monotonic() - begun)


def ask_all() -> None:
    """One greenlet for each host."""
    *targets, file = sys.argv[1:]
    questions = json.loads(Path(file).read_text())
    hosts = []
    for number, target in enumerate(targets):
        port, _, how = target.partition(":")
        data: dict[str, Any] = {"ssh_hostname": "127.0.0.1", "ssh_port": int(port), "ssh_user": "x"}
        data |= {"ssh_password": "x", "ssh_allow_agent": False, "ssh_look_for_keys": False}
        data |= {"ssh_strict_host_key_checking": "no", "ssh_known_hosts_file": "/dev/null"}
        if how == "bounded":
            data["ssh_paramiko_connect_kwargs"] = {"transport_factory": connections_to(Identity("h", None, None, ""))}
        hosts.append((f"h{number}", data))
    state = State(Inventory((hosts, {})), Config(CONNECT_TIMEOUT=10))
    try:
        connect_all(state)
    except PyinfraError as error:
        print(json.dumps({"refused": str(error), "peak": _peak()}))
        return
    worst = [0.0]
    before = _peak()
    watcher = gevent.spawn(longest_wait, worst)
    jobs = [
        gevent.spawn(asked, host, what, target.endswith(":bounded"))
        for host, what, target in zip(state.inventory, questions, targets, strict=True)
    ]
    gevent.joinall(jobs)
    watcher.kill()
    print(json.dumps({"hosts": [job.value for job in jobs], "grown": _peak() - before, "wait": worst[0]}))


def _peak() -> float:
    """MiB that this process has had at most. (A child begins with its parent's: getrusage would say that.)"""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    ask_all()
