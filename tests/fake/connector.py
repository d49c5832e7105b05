"""pyinfra's own `@fake` connector in SSH's place, which writes down what each host is asked to execute."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gevent
import pyinfra.api.inventory as inventory
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.fake import FakeConnector
from pyinfra.connectors.util import CommandOutput, OutputLine

LOG = "PRIVNET_TEST_EXECUTED"
CONNECTED = ".connected"
"""Of a file with the host of each connection that was tried."""
ENDED = ".ended"
"""Of the file beside it, which gets the same lines, each when the execution is over."""


class Recorded(FakeConnector):
    """One line of JSON for each execution: host and command.

    A host whose data says ``away`` cannot be reached, and one that ``refuses`` does not take these of its connections.
    One with a text that ``hangs`` never says how a command with that text has ended, whatever time it is given. Of one,
    programs fail at ``first`` with these words in turn; None: the connection is lost, no words: this one does not fail.
    One with a ``later`` answers that once a program has run there. What it is when it
    confirms is in ``confirmed``; peers that it has ``lost`` it names when it is asked.
    """

    connections = programs = 0

    def connect(self) -> None:
        """As many times as the host's data allows, if they say so."""
        self.connections += 1
        _write(Path(os.environ[LOG]).with_suffix(CONNECTED), self.host.name)
        if self.host.data.get("away"):
            raise ConnectError("no route to it")
        if self.connections > (self.host.data.get("connections_at_most") or self.connections):
            raise ConnectError("it takes no new connection")
        if self.connections in (self.host.data.get("refuses") or []):
            raise ConnectError("connection refused")
        super().connect()

    def run_shell_command(self, command: Any, *positional: Any, **arguments: Any) -> Any:
        text = command if isinstance(command, str) else command.get_masked_value()
        log = Path(os.environ[LOG])
        _write(log, self.host.name, text)
        if (self.host.data.get("hangs") or "\0") in text:
            gevent.sleep(10**6)
        answer = super().run_shell_command(command, *positional, **arguments)
        if "base64 -d" in text:
            self.programs += 1
            words = (self.host.data.get("first") or [])[self.programs - 1 : self.programs]
            if words and words[0] != "":
                answer = False, CommandOutput([OutputLine("stderr", self._said(words[0]))])
        kept = " privnet confirm " in text or " privnet hold " in text
        if kept and (confirmed := self.host.data.get("confirmed")):
            answer = True, CommandOutput([OutputLine("stdout", line) for line in confirmed])
        elif " privnet lost " in text:
            answer = True, CommandOutput([OutputLine("stdout", line) for line in self.host.data.get("lost") or []])
        elif self.programs and "gzip -d" in text and (later := self.host.data.get("later")):
            answer = True, CommandOutput([OutputLine("stdout", line) for line in later])
        _write(log.with_suffix(ENDED), self.host.name, text)
        return answer

    @staticmethod
    def _said(words: str | None) -> str:
        if words is None:
            raise OSError("Socket is closed")
        return words


def _write(path: Path, *line: str) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def install() -> None:
    """Hosts without a connector of their own get this one."""
    known = inventory.get_execution_connectors
    inventory.get_execution_connectors = lambda: known() | {"ssh": Recorded}
