"""What an inventory says of its hosts, and the copy of an inventory that a rehearsal runs on."""

from __future__ import annotations

import ipaddress
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privnet.lab import settings
from privnet.lab.errors import LabError
from privnet.load import LOCK_FILE, LOCK_OF_RUNS, read_declaration
from privnet.model.lock import forget_host_keys
from privnet.progress import PROGRESS_FILE
from privnet.store import load_lock, lock_text

_SHIM = """from privnet.deploy.inventory import groups as _groups

globals().update(_groups())
"""
_OF_RUNS = (LOCK_FILE, PROGRESS_FILE, LOCK_OF_RUNS)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class LabHost:
    """One host as the lab needs it.

    :param addresses: on the underlay; SSH goes to the first
    :param mtu: of its uplink, in bytes
    """

    name: str
    addresses: tuple[Address, ...]
    mtu: int = 1500
    user: str = "root"
    ssh_port: int = 22

    def to_json(self) -> dict[str, object]:
        addresses = [str(address) for address in self.addresses]
        return {"addresses": addresses, "mtu": self.mtu, "user": self.user, "ssh_port": self.ssh_port}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> LabHost:
        addresses = tuple(ipaddress.ip_address(text) for text in data["addresses"])
        return cls(name, addresses, data["mtu"], data["user"], data["ssh_port"])


@dataclass(frozen=True, slots=True)
class LabFleet:
    """An inventory directory: its fleet's name, whether it lives in the lab only, and its hosts."""

    directory: Path
    name: str
    lab: bool
    hosts: tuple[LabHost, ...]


def read_fleet(directory: Path) -> LabFleet:
    """The hosts that an inventory directory declares.

    Raises DeclarationError when it cannot be read, LabError for a host that the lab cannot play.
    """
    declaration = read_declaration(directory)
    hosts = []
    for name, host in declaration.fleet.hosts.items():
        settings.check_host_name(name)
        endpoint = host.wireguard_endpoint(declaration.fleet.wireguard.port)[0]
        addresses = tuple(ipaddress.ip_address(text) for text in dict.fromkeys((host.address, endpoint)))
        hosts.append(LabHost(name, addresses, host.mtu, host.ssh.user, host.ssh.port))
    fleet = declaration.fleet
    return LabFleet(directory.resolve(), fleet.fleet, fleet.lab, tuple(hosts))


def forget_lock(directory: Path) -> bool:
    """Remove a lab fleet's lock file: its addresses and keys were those of hosts that are gone."""
    (directory / PROGRESS_FILE).unlink(missing_ok=True)
    lock = directory / LOCK_FILE
    if not lock.exists():
        return False
    lock.unlink()
    return True


def rehearse(fleet: LabFleet, copy: Path) -> None:
    """Copy an inventory to `copy`, as a fleet of the lab; the inventory itself is only read.

    The YAML is taken anew each time; the lock file only the first time, without the keys of its hosts: from then on
    what runs have written into the copy tells of the lab's hosts.
    """
    first = not (copy / LOCK_FILE).is_file()
    for path in copy.iterdir() if copy.is_dir() else ():
        if path.name not in _OF_RUNS:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    ignored = shutil.ignore_patterns(f"{LOCK_FILE}*", PROGRESS_FILE, ".*")
    shutil.copytree(fleet.directory, copy, ignore=ignored, dirs_exist_ok=True)
    _mark_as_lab(copy / "fleet.yaml")
    _copy_shim(fleet.directory, copy)
    if first and (fleet.directory / LOCK_FILE).is_file():
        (copy / LOCK_FILE).write_text(lock_text(forget_host_keys(load_lock(fleet.directory, fleet.name))))


def _mark_as_lab(file: Path) -> None:
    text = file.read_text()
    marked, replaced = re.subn(r"(?m)^lab\s*:.*$", "lab: true", text)
    file.write_text(marked if replaced else f"{text.rstrip()}\nlab: true\n")
    if not read_declaration(file.parent).fleet.lab:
        raise LabError(f"{file}: cannot mark the copy as a fleet of the lab", help="write one key a line")


def _copy_shim(original: Path, copy: Path) -> None:
    """pyinfra's inventory beside the directory: the user's own, or the usual two lines."""
    own = original.with_suffix(".py")
    copy.with_suffix(".py").write_text(own.read_text() if own.is_file() else _SHIM)
