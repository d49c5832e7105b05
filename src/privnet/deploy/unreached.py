"""Why a host could not be reached: pyinfra prints it, and gives the host up."""

from __future__ import annotations

from typing import Any

from paramiko import SSHException
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.state import BaseStateCallback
from pyinfra.api.state import State as PyinfraState
from pyinfra.context import ctx_state

from privnet.deploy.outcome import State
from privnet.deploy.run import Run

LENGTH_AT_MOST = 500


class Connections(BaseStateCallback):
    """Writes down, for the summary, why the first connection to a host has failed."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def host_connect_error(self, state: Any, host: Any, error: Any) -> None:  # type: ignore[override] # not static
        """Pyinfra calls this. What comes of a later connection is told by who has asked for it."""
        found = self._run.outcome.hosts.get(host.name)
        if found is not None and found.state is State.unreached:
            self._run.note(host.name, State.unreached, reason(error))


def reason(error: BaseException) -> str:
    """What is wrong, in one line; of an exception of SSH without pyinfra's words around it."""
    cause = error.__context__ if isinstance(error, ConnectError) else error
    said = str(cause) if isinstance(cause, SSHException) and str(cause) else str(error)
    return " ".join(said.split())[:LENGTH_AT_MOST] or type(error).__name__


def note(run: Run) -> None:
    """From now on, in a run of pyinfra. It has a state before its inventory, which takes no callbacks until later."""
    if not ctx_state.isset():  # type: ignore[no-untyped-call]
        return
    state: PyinfraState = ctx_state.get()  # type: ignore[no-untyped-call]
    begin = state.init

    def init(*positional: Any, **arguments: Any) -> None:
        """Pyinfra calls this with the inventory."""
        begin(*positional, **arguments)
        state.add_callback_handler(Connections(run))  # type: ignore[no-untyped-call]

    state.init = init  # type: ignore[method-assign]
