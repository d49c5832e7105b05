"""pyinfra's groups of hosts: all of the fleet, and those of each zone."""

from __future__ import annotations

from privnet.model.fleet import Fleet

EVERY = "fleet"


def groups(fleet: Fleet) -> dict[str, list[str]]:
    """The hosts of each group that are in service, as they are declared; a group's name is one of Python's."""
    hosts = {name: host for name, host in fleet.hosts.items() if name not in fleet.out}
    found = {EVERY: [*hosts]}
    for name, host in hosts.items():
        if host.zone:
            found.setdefault(f"zone_{host.zone.replace('-', '_')}", []).append(name)
    return found
