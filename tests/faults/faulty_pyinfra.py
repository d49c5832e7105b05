"""pyinfra, in a process of its own, that comes by a place where a test stops it.

``PRIVNET_TEST_FAULT`` is a directory. ``point`` in it names where to stop; at that place ``reached`` is made, and all
waits until ``go`` is there. A point on a host stops the host instead (:mod:`points`); with ``afterwards`` there, the
run stops too, when that execution is over. ``tour`` gets a line of JSON for each execution; when ``stops`` is there,
every one stops before it begins, as ``reached.HOST.N`` and ``go.HOST.N``. When ``notes`` is there, hosts write down the
lines that they come by.
"""

from __future__ import annotations

from pyinfra_cli.main import main  # isort: skip  # before all else: it replaces what blocks

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from points import CALL, CHANGE, PROGRAM, UPLOAD, Point, calling, members, noting
from pyinfra.connectors.ssh import SSHConnector

PLACE = Path(os.environ["PRIVNET_TEST_FAULT"])


def _stop(suffix: str = "") -> None:
    (PLACE / f"reached{suffix}").touch()
    while not (PLACE / f"go{suffix}").exists():
        gevent.sleep(0.01)


class Halved(list[str]):
    """The lines of an upload; when half of them are taken, all stops."""

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(super().__iter__()):
            if number == len(self) // 2:
                _stop()
            yield line


def install() -> None:
    """Let every execution over SSH come by."""
    execute = SSHConnector.run_shell_command
    named = PLACE / "point"
    point = Point.of(named.read_text()) if named.exists() else None
    counts: Counter[str] = Counter()

    def run_shell_command(self: Any, command: Any, *positional: Any, **arguments: Any) -> Any:
        host = self.host.name
        counts[host] += 1
        upload = arguments.get("_stdin")
        texts = members(upload) if isinstance(upload, str) else {}
        step = {"host": host, "execution": counts[host], "command": str(command)}
        step |= {"program": texts.get(PROGRAM), "change": texts.get(CHANGE)}
        with (PLACE / "tour").open("a") as tour:
            tour.write(json.dumps(step) + "\n")
        here = point is not None and (point.host, point.execution) == (host, counts[host])
        if (PLACE / "stops").exists():
            _stop(f".{host}.{counts[host]}")
        if here and point.place == "before":
            _stop()
        calls = noting(upload, counts[host]) if texts and (PLACE / "notes").exists() else {}
        if here and point.inside:
            calls[point.place] = "\n".join([*calls.pop(point.place, "").splitlines(), CALL])
        if calls:
            arguments["_stdin"] = calling(upload, calls)
        if here and point.place == UPLOAD:
            arguments["_stdin"] = Halved(arguments["_stdin"].splitlines())
        answer = execute(self, command, *positional, **arguments)
        if here and (point.place == "after" or (PLACE / "afterwards").exists()):
            _stop()
        return answer

    SSHConnector.run_shell_command = run_shell_command


if __name__ == "__main__":
    install()
    sys.exit(main())
