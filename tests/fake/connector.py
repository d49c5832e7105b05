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

LOG = "PRIVNET_TEST_EXECUTED"


class Recorded(FakeConnector):
    """One line of JSON for each execution: host and command.

    A host whose data says ``away`` cannot be reached. One with a text that ``hangs`` never says how a command with that
    text has ended, whatever time it is given.
    """

    def connect(self) -> None:
        if self.host.data.get("away"):
            raise ConnectError("no route to it")
        super().connect()

    def run_shell_command(self, command: Any, *positional: Any, **arguments: Any) -> Any:
        text = command if isinstance(command, str) else command.get_masked_value()
        with Path(os.environ[LOG]).open("a") as file:
            file.write(json.dumps([self.host.name, text]) + "\n")
        if (self.host.data.get("hangs") or "\0") in text:
            gevent.sleep(10**6)
        return super().run_shell_command(command, *positional, **arguments)


def install() -> None:
    """Hosts without a connector of their own get this one."""
    known = inventory.get_execution_connectors
    inventory.get_execution_connectors = lambda: known() | {"ssh": Recorded}
