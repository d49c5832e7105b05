"""The SSH host keys of the lock file, in the form that SSH clients read."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from privnet.model.fleet import Fleet
from privnet.model.lock import Lock


def known_hosts_text(fleet: Fleet, lock: Lock) -> str:
    """One line for each host whose key is known (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    lines = []
    for name, host in sorted(fleet.hosts.items()):
        known = lock.hosts.get(name)
        if known and known.ssh:
            where = host.address if host.ssh.port == 22 else f"[{host.address}]:{host.ssh.port}"
            lines.append(f"{where} {known.ssh}\n")
    return "".join(lines)


@cache
def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "privnet"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def write_known_hosts(directory: Path, fleet: Fleet, lock: Lock) -> Path:
    """A file with these keys, named after the fleet's directory and its own content."""
    text = known_hosts_text(fleet, lock)
    digest = hashlib.sha256(f"{directory}\n{text}".encode()).hexdigest()[:16]
    path = _folder() / f"{fleet.fleet}.{digest}.known_hosts"
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.rename(path)
    return path
