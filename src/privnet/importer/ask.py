"""One question to each host, over OpenSSH, all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from privnet.audit.connection import COMMAND_SECONDS, CONNECT_SECONDS, SSH_FAILED, Dialogue
from privnet.audit.finding import Unanswered
from privnet.diagnostics import quoted
from privnet.importer.answer import BYTES_AT_MOST, MARK, Answer, Unusable, parse_answer
from privnet.known_hosts import Login, SettingsRefused, ssh_settings, strict
from privnet.model.identifiers import SSH_USER

AT_ONCE = 16
_TARGET = re.compile(
    rf"(?:({SSH_USER})@)?(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Fa-f]*(?::[0-9A-Fa-f.]*){{2,}})|([A-Za-z0-9][A-Za-z0-9._-]*))"
    r"(?::([1-9][0-9]{0,4}))?"
)
_AS_ROOT = """sh -c 'if [ "$(id -u)" = 0 ]; then exec sh -s; else exec sudo -n sh -s; fi'"""
"""Whatever the login shell is."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a host is asked: ``[user@]address[:port]``, or a name that the SSH configuration knows.

    :param user: empty for the one that ssh(1) takes by itself
    """

    address: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises Unusable for what is no target; nothing in one can be an option of ssh."""
        found = _TARGET.fullmatch(text)
        if found is None or int(found[5] or 0) > 65535:
            raise Unusable(f"{quoted(text)} is not [USER@]ADDRESS[:PORT], for example deploy@192.0.2.11:2222")
        user, bracketed, six, name, port = found.groups()
        return cls(bracketed or six or name, user or "", int(port) if port else None)

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address and self.port else self.address
        return (f"{self.user}@" if self.user else "") + address + (f":{self.port}" if self.port else "")

    def argv(self, ssh_config: Path | None) -> list[str]:
        """The local command that runs a shell program as root over there."""
        fixed = ("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "LogLevel=ERROR")
        alive = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
        # As at a first deploy: the key of a host that this machine has never seen is taken, another one is refused.
        trust: tuple[str, ...] = ("-F", str(ssh_config)) if ssh_config else ("-o", "StrictHostKeyChecking=accept-new")
        with suppress(SettingsRefused):  # ssh will say so itself
            if ssh_config is None and strict(ssh_settings(Login(self.address, self.port or 22, self.user))):
                trust = ()
        login = (("-l", self.user) if self.user else ()) + (("-p", str(self.port)) if self.port else ())
        return ["ssh", *fixed, *alive, *trust, *login, "--", self.address, _AS_ROOT]


def ask_all(targets: Iterable[Target], ssh_config: Path | None) -> Mapping[Target, Answer | Unusable]:
    """What each host answered, or why that is nothing to go by."""
    every = list(dict.fromkeys(targets))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(every, pool.map(lambda target: _ask(target, ssh_config), every), strict=True))


def _ask(target: Target, ssh_config: Path | None) -> Answer | Unusable:
    try:
        return parse_answer(_converse(Dialogue(target.argv(ssh_config), BYTES_AT_MOST)))
    except Unanswered as error:
        return Unusable(f"did not answer ({error})")
    except Unusable as error:
        return error


def _converse(dialogue: Dialogue) -> bytes:
    try:
        dialogue.write(program())
        dialogue.finish_input()
        output = dialogue.read_all(COMMAND_SECONDS)
    finally:
        status = dialogue.close()
    if status == SSH_FAILED or MARK.encode() not in output:
        raise Unanswered(dialogue.complaint() or "it ended without a word")
    return output


@cache
def program() -> bytes:
    """What runs on a host. It goes over standard input: sudo would write an argument into the host's log."""
    return (resources.files("privnet.importer") / "answer.sh").read_bytes()
