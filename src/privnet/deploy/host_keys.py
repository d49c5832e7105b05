"""What a person is told when a host answers with another SSH host key than the lock file has.

pyinfra refuses such a host by itself, before anything is sent to it. But it speaks of a file of known hosts, which here
is made from the lock file, and of `ssh-keygen -R`, which would change nothing (pyinfra 3.10, `connectors/ssh.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

_NOT_OURS = re.compile(
    "REMOTE HOST IDENTIFICATION HAS CHANGED|Someone could be eavesdropping|you can remove the bad key|ssh-keygen -R"
    r"|^No host key for \S+ found in known_hosts$"
)
_REFUSED = re.compile(
    r"SSH host key error \(Host key for (?P<other>\S+) does not match\.\)"
    r"|SSH error \(StrictPolicy: No host key for (?P<none>\S+) found in known_hosts\)"
)


class OtherHostKeys(logging.Filter):
    """Puts what pyinfra says of another host key into our words.

    :param hosts: names of hosts by what pyinfra connects to
    :param directory: of the fleet, as it is typed
    """

    def __init__(self, hosts: Mapping[str, str], directory: str) -> None:
        super().__init__()
        self.hosts = hosts
        self.directory = directory

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is shown, which may be another one by then."""
        said = record.getMessage()
        if _NOT_OURS.search(said):
            return False
        found = _REFUSED.search(said)
        if found:
            record.msg, record.args = said.replace(found[0], self._reason(found["other"] or found["none"])), ()
        return True

    def _reason(self, address: str) -> str:
        name = self.hosts.get(address.removeprefix("[").partition("]")[0], address)
        return (
            "PN508: it answers with another SSH host key than the lock file has: another machine is at its address, or "
            "it was reinstalled. Nothing was sent to it. If you know that it was reinstalled: "
            f"`privnet forget {self.directory} {name}`, then run again"
        )


def explain_other_host_keys(hosts: Mapping[str, str], directory: str) -> None:
    """From now on, and once for all: pyinfra's lines about another host key are in our words."""
    logger = logging.getLogger("pyinfra")
    for old in [known for known in logger.filters if isinstance(known, OtherHostKeys)]:
        logger.removeFilter(old)
    logger.addFilter(OtherHostKeys(hosts, directory))
