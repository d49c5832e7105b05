"""Who a host is: the SSH key of its connections.

A host that the lock file knows has to show that key. Of any other one the first connection of a run decides, unless
the user's own SSH files or configuration speak against it (:mod:`privnet.known_hosts`). From then on, in the same run,
every connection has to show the same key. paramiko would look at its own lists only, and pyinfra 3.10 accepts any key
of a host that is in none of them, at each connection anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from paramiko import PKey, SSHException

from privnet.known_hosts import Login, objection

RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
"""How a server may sign with a key of type `ssh-rsa` (RFC 8332)."""
_UNCHECKED = "No host key for "
"""How pyinfra's line about a host begins that its own lists do not have."""


class OtherHostKey(SSHException):
    """A host shows a key that it must not have. The message says which, and what to do."""


@dataclass(slots=True)
class Identity:
    """One host's SSH key in one run.

    :param pinned: the key that the lock file has, as ``<type> <base64>``
    :param login: how the host is reached; None for a host of a lab, whose own SSH configuration decides
    :param forget: the command that lets the next run take another key
    :param key: what the first connection of this run has shown
    """

    name: str
    pinned: str | None
    login: Login | None
    forget: str
    key: str | None = None

    def preferred(self, types: Sequence[str]) -> list[str]:
        """Kinds of signatures, those of the key that is expected first: a server has keys of several types."""
        expected = self.key or self.pinned
        kind = expected.partition(" ")[0] if expected else ""
        first = [name for name in (RSA if kind == "ssh-rsa" else (kind,)) if name in types]
        return [*first, *(name for name in types if name not in first)]

    def verify(self, shown: PKey) -> None:
        """Accept the key of a new connection. Raises OtherHostKey."""
        key = f"{shown.get_name()} {shown.get_base64()}"
        if self.key is None:
            self._first(key)
            self.key = key
        elif key != self.key:
            raise OtherHostKey(
                "PN508: it answers with another SSH host key than at the beginning of this run: another machine is at "
                "its address now, or its keys were made anew just now. Nothing was sent over this connection"
            )

    def _first(self, key: str) -> None:
        if self.login is None or key == self.pinned:
            return
        against = objection(self.login, key)
        if self.pinned is None:
            if against:
                raise OtherHostKey(f"PN508: {against}. Nothing was sent to it")
            return
        also = f", and as {against}" if against and against.remedy else ""
        raise OtherHostKey(
            "PN508: it answers with another SSH host key than the lock file has: another machine is at its address, or "
            "it was reinstalled. Nothing was sent to it. If you know that it was reinstalled: "
            f"`{self.forget}`{also}, then run again"
        )


class Unchecked(logging.Filter):
    """Leaves out what pyinfra says of a host that is in none of its own lists."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is shown."""
        return not record.getMessage().startswith(_UNCHECKED)


def leave_out_unchecked() -> None:
    """From now on, and once for all."""
    logger = logging.getLogger("pyinfra")
    if not any(isinstance(known, Unchecked) for known in logger.filters):
        logger.addFilter(Unchecked())
